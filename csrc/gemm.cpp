#include "gemm.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "checks.h"
#include "isa.h"
#include "profile.h"

namespace moco {

// brgemm is torch's door to oneDNN's micro-kernels, compiled at run time for the processor and one (M, N, K) each
// (30 to 80 us, kept per thread). A row of C is summed in the same order whatever M is (tests/test_encoder.py).
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/false);
}

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

bool can_multiply(at::ScalarType dtype) {
  if (dtype == at::kFloat) return true;
  if (dtype != at::kBFloat16) return false;
  static const bool can = [] {
    try {
      const bfloat16 zeros[2 * 16] = {};
      float c[16];
      multiply(1, 16, 2, zeros, 2, zeros, 16, c, 16, false);
      return true;
    } catch (const c10::Error&) {
      return false;
    }
  }();
  return can;
}

Linear::Linear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType dtype, int64_t depth)
    : inputs_(weight.size(1)), outputs_(weight.size(0)), depth_(dtype == at::kFloat ? depth : kDepthBFloat16) {
  TORCH_CHECK_VALUE(dtype == at::kFloat || inputs_ % 2 == 0, "Linear: inputs must be even in ", name_of(dtype),
                    " (got ", inputs_, ")");
  const int64_t panels_ = panels().last;
  const at::Tensor w = at::constant_pad_nd(weight.detach().to(dtype), {0, 0, 0, panels_ * kPanel - outputs_});
  packed_ = dtype == at::kFloat ? w.view({panels_, kPanel, inputs_}).transpose(1, 2).contiguous()
                                : w.view({panels_, kPanel, inputs_ / 2, 2}).transpose(1, 2).contiguous();
  bias_ = bias.defined() ? bias.detach().to(at::kFloat).contiguous() : at::zeros({outputs_});
}

template <typename T>
const T* Linear::panel(int64_t p) const {
  return static_cast<const T*>(packed_.const_data_ptr()) + p * inputs_ * kPanel;
}

template <typename T>
void Linear::tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const {
  multiply(tokens, width(p), std::min(depth_, inputs_ - input), x + input, ld_x, panel<T>(p) + input * kPanel, kPanel,
           c, ld_c, input > 0);
}

// Weights outside, tokens inside: a piece of a panel stays in the second-level cache for all of them.
template <typename T>
void Linear::product(const T* x, int64_t ld_x, int64_t tokens, Range panels, float* product, int64_t ld_product) const {
  const Timed timed(Part::kProducts);
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t input = 0; input < inputs_; input += depth_) {
      for (int64_t t = 0; t < tokens; t += kTile) {
        tile(x + t * ld_x, ld_x, std::min(kTile, tokens - t), p, input, product + t * ld_product + p * kPanel,
             ld_product);
      }
    }
  }
}

template <typename T>
void Linear::apply(const T* x, int64_t ld_x, int64_t tokens, Range panels, Activation activation, T* out,
                   int64_t ld_out) const {
  const Timed timed(Part::kProducts);
  alignas(64) float c[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t t = 0; t < tokens; t += kTile) {
      const int64_t m = std::min(kTile, tokens - t);
      for (int64_t input = 0; input < inputs_; input += depth_) tile(x + t * ld_x, ld_x, m, p, input, c, kPanel);
      hidden_kernels<T>().bias_activation(c, bias() + p * kPanel, activation, m, width(p), kPanel,
                                          out + t * ld_out + p * kPanel, ld_out);
    }
  }
}

template void Linear::product(const float*, int64_t, int64_t, Range, float*, int64_t) const;
template void Linear::product(const bfloat16*, int64_t, int64_t, Range, float*, int64_t) const;
template void Linear::apply(const float*, int64_t, int64_t, Range, Activation, float*, int64_t) const;
template void Linear::apply(const bfloat16*, int64_t, int64_t, Range, Activation, bfloat16*, int64_t) const;

}  // namespace moco
