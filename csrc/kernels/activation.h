// What stands between two products: bias and activation function, and the dtype that the next product reads.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// x * Phi(x), Phi the normal distribution function: 0.5 + x P(x^2) with the minimax polynomial of degree 14 on
// [-5.6, 5.6], beyond which Phi is 0 or 1 in float. Absolute error 7e-7 (torch's erf form: 1.1e-6).
inline Vec gelu(Vec x) {
  constexpr float kEnd = 5.6F;
  constexpr float kCoefficients[] = {
      0.12625961F,    -0.0630513355F,  0.0469796769F,  -0.0383425467F,  0.031993147F,
      -0.0263558496F, 0.0207750835F,   -0.0154836625F, 0.0115473475F,   -0.00836842041F,
      0.00436761091F, -0.00154376763F, 0.00161116791F, -0.00168210757F, 0.000579766997F,
  };
  const Vec inside = max(min(x, splat(kEnd)), splat(-kEnd));
  const Vec t = inside * inside * (2.0F / kEnd / kEnd) - 1.0F;
  Vec p = splat(kCoefficients[14]);
#pragma GCC unroll 14
  for (int i = 13; i >= 0; --i) p = p * t + kCoefficients[i];
  const Vec phi = inside * p + 0.5F;
  return x >= kEnd ? x : x <= -kEnd ? x * 0.0F : x * phi;
}

// 0.5 x (1 + tanh(z)) = x / (1 + exp(-2z)), z = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu_tanh(Vec x) { return x / (1.0F + exp(x * (x * x * -0.0713548163F - 1.59576912F))); }

inline Vec tanh(Vec x) {
  const Vec size = max(x, -x);
  const Vec far = 1.0F - 2.0F / (exp(size * 2.0F) + 1.0F);
  // Near 0 that would lose digits: x + x^3 P(x^2), Cephes' polynomial.
  const Vec u = x * x;
  Vec p = splat(-5.70498872745e-3F);
  p = p * u + 2.06390887954e-2F;
  p = p * u - 5.37397155531e-2F;
  p = p * u + 1.33314422036e-1F;
  p = p * u - 3.33332819422e-1F;
  const Vec near = x + x * u * p;
  return size < 0.625F ? near : x < 0.0F ? -far : far;
}

inline Vec relu(Vec x) { return x < 0.0F ? Vec{} : x; }
inline Vec identity(Vec x) { return x; }

template <Vec (*function)(Vec), typename T>
void apply(const float* product, const float* bias, int64_t tokens, int64_t columns, int64_t ld_product, T* out,
           int64_t ld_out) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float* from = product + t * ld_product;
    T* to = out + t * ld_out;
    for_vectors(columns, [&](int64_t n, auto lanes) {
      store(to + n, function(load(from + n, lanes) + load(bias + n, lanes)), lanes);
    });
  }
}

template <typename T>
void bias_activation(const float* product, const float* bias, Activation activation, int64_t tokens, int64_t columns,
                     int64_t ld_product, T* out, int64_t ld_out) {
  switch (activation) {
    case Activation::kNone:
      return apply<identity>(product, bias, tokens, columns, ld_product, out, ld_out);
    case Activation::kGelu:
      return apply<gelu>(product, bias, tokens, columns, ld_product, out, ld_out);
    case Activation::kGeluTanh:
      return apply<gelu_tanh>(product, bias, tokens, columns, ld_product, out, ld_out);
    case Activation::kRelu:
      return apply<relu>(product, bias, tokens, columns, ld_product, out, ld_out);
    case Activation::kTanh:
      return apply<tanh>(product, bias, tokens, columns, ld_product, out, ld_out);
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
