// The way from one product to the next: bias, activation function, and the dtype that the next product reads.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// x * Phi(x), Phi the normal distribution function, as x (0.5 + x P(x^2)) with the minimax polynomial P on [-end, end].
// Beyond its ends Phi is 0 or 1 to the accuracy of P.
template <int terms>
inline Vec gelu_polynomial(Vec x, float end, const float (&coefficients)[terms]) {
  const Vec above = max(splat(-end), x);  // in this order NaN stays
  const Vec inside = min(above, splat(end));
  const Vec t = inside * inside * (2.0F / end / end) - 1.0F;
  Vec p = splat(coefficients[terms - 1]);
#pragma GCC unroll 16
  for (int i = terms - 2; i >= 0; --i) p = p * t + coefficients[i];
  return above * (inside * p + 0.5F);
}

#ifndef MOCO_X86_VECTORS
// As torch computes it where it has no vectors of its own: the C library's erf is three times as exact as a polynomial.
inline Vec gelu(Vec x) {
  Vec erf;
  for (int64_t lane = 0; lane < kWidth; ++lane) erf[lane] = __builtin_erff(x[lane] * 0.70710678F);
  return 0.5F * x * (1.0F + erf);
}
#else
// Absolute error 7e-7, of values below 1.5 2e-7 (torch's erf form: 1.1e-6).
inline Vec gelu(Vec x) {
  return gelu_polynomial(x, 5.6F,
                         {
                             0.126259595F,
                             -0.0630512685F,
                             0.0469806865F,
                             -0.0383462906F,
                             0.0319748893F,
                             -0.0263026599F,
                             0.0208946411F,
                             -0.0158018526F,
                             0.0111968461F,
                             -0.00741720013F,
                             0.00482531544F,
                             -0.00303633441F,
                             0.00145685894F,
                             -0.000508991827F,
                             0.000409963221F,
                             -0.000363643165F,
                             0.000115162584F,
                         });
}
#endif

// Absolute error 1.3e-4 in half the time: for values of which 8 bits are kept.
inline Vec gelu_to_8_bits(Vec x) {
  return gelu_polynomial(x, 4.0F,
                         {
                             0.175947756F,
                             -0.0843574703F,
                             0.0560508072F,
                             -0.0364953727F,
                             0.021621719F,
                             -0.0132599995F,
                             0.00821128394F,
                             -0.00272900774F,
                         });
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

inline Vec silu(Vec x) { return x / (1.0F + exp(-x)); }
inline Vec relu(Vec x) { return x < 0.0F ? Vec{} : x; }

// f(function), which is chosen once for a whole tile. T: what the results are stored in.
template <typename T, typename F>
inline void with_activation(Activation activation, const F& f) {
  switch (activation) {
    case Activation::kNone:
      return f([](Vec x) { return x; });
    case Activation::kGelu:
      return f([](Vec x) { return sizeof(T) == sizeof(bfloat16) ? gelu_to_8_bits(x) : gelu(x); });
    case Activation::kGeluTo8Bits:
      return f([](Vec x) { return gelu_to_8_bits(x); });
    case Activation::kGeluTanh:
      return f([](Vec x) { return gelu_tanh(x); });
    case Activation::kRelu:
      return f([](Vec x) { return relu(x); });
    case Activation::kSilu:
      return f([](Vec x) { return silu(x); });
    case Activation::kTanh:
      return f([](Vec x) { return tanh(x); });
  }
}

template <typename T>
void bias_activation(const float* product, int64_t ld_product, const float* bias, Activation activation, int64_t tokens,
                     int64_t columns, T* out, int64_t ld_out) {
  with_activation<T>(activation, [&](auto function) {
    for_vectors(columns, [&](int64_t n, auto lanes) {
      const Vec shift = load(bias + n, lanes);
      for (int64_t t = 0; t < tokens; ++t) {
        store(out + t * ld_out + n, function(load(product + t * ld_product + n, lanes) + shift), lanes);
      }
    });
  });
}

template <typename T>
void gated(const float* gate, const float* up, int64_t ld_products, const float* gate_bias, const float* up_bias,
           Activation activation, int64_t tokens, int64_t columns, T* out, int64_t ld_out) {
  with_activation<T>(activation, [&](auto function) {
    for_vectors(columns, [&](int64_t n, auto lanes) {
      const Vec gate_shift = load(gate_bias + n, lanes);
      const Vec up_shift = load(up_bias + n, lanes);
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t i = t * ld_products + n;
        const Vec open = function(load(gate + i, lanes) + gate_shift);
        store(out + t * ld_out + n, open * (load(up + i, lanes) + up_shift), lanes);
      }
    });
  });
}

}  // namespace
}  // namespace moco::MOCO_ISA
