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
#pragma GCC unroll 14
  for (int i = terms - 2; i >= 0; --i) p = p * t + coefficients[i];
  return above * (inside * p + 0.5F);
}

// Absolute error 7e-7 (torch's erf form: 1.1e-6); for bfloat16, which keeps 8 bits, 1.3e-4 in half the time.
template <typename T>
inline Vec gelu(Vec x) {
  constexpr float kExact[] = {
      0.12625961F,    -0.0630513355F,  0.0469796769F,  -0.0383425467F,  0.031993147F,
      -0.0263558496F, 0.0207750835F,   -0.0154836625F, 0.0115473475F,   -0.00836842041F,
      0.00436761091F, -0.00154376763F, 0.00161116791F, -0.00168210757F, 0.000579766997F,
  };
  constexpr float kShort[] = {
      0.175947756F, -0.0843574703F, 0.0560508072F,  -0.0364953727F,
      0.021621719F, -0.0132599995F, 0.00821128394F, -0.00272900774F,
  };
  if constexpr (sizeof(T) == sizeof(bfloat16)) {
    return gelu_polynomial(x, 4.0F, kShort);
  } else {
    return gelu_polynomial(x, 5.6F, kExact);
  }
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

// Some columns of a product, as a function of the token. Values that belong to the columns are read once for all
// tokens.
template <typename Lanes>
inline auto columns_of(const Accumulator<float>& product, int64_t n, Lanes lanes) {
  return [=](int64_t t) { return load(product.values + t * product.ld + n, lanes); };
}
template <typename Lanes>
inline auto columns_of(const Accumulator<int32_t>& product, int64_t n, Lanes lanes) {
  const Vec scale = load(product.scale + n, lanes);
  const Vec sums = load(product.sums + n, lanes);
  return [=](int64_t t) {
    const Vec whole = __builtin_convertvector(load(product.values + t * product.ld + n, lanes), Vec);
    return whole * scale * product.tokens.scale[t] + sums * product.tokens.minimum[t];
  };
}

template <Vec (*function)(Vec), typename P, typename T>
void apply(const Accumulator<P>& product, const float* bias, int64_t tokens, int64_t columns, T* out, int64_t ld_out) {
  for_vectors(columns, [&](int64_t n, auto lanes) {
    const auto value = columns_of(product, n, lanes);
    const Vec shift = load(bias + n, lanes);
    for (int64_t t = 0; t < tokens; ++t) store(out + t * ld_out + n, function(value(t) + shift), lanes);
  });
}

template <typename P, typename T>
void bias_activation(const Accumulator<P>& product, const float* bias, Activation activation, int64_t tokens,
                     int64_t columns, T* out, int64_t ld_out) {
  switch (activation) {
    case Activation::kNone:
      return apply<identity>(product, bias, tokens, columns, out, ld_out);
    case Activation::kGelu:
      return apply<gelu<T>>(product, bias, tokens, columns, out, ld_out);
    case Activation::kGeluTanh:
      return apply<gelu_tanh>(product, bias, tokens, columns, out, ld_out);
    case Activation::kRelu:
      return apply<relu>(product, bias, tokens, columns, out, ld_out);
    case Activation::kTanh:
      return apply<tanh>(product, bias, tokens, columns, out, ld_out);
  }
}

void dequantize(const Accumulator<int32_t>& product, int64_t tokens, int64_t columns, float* out, int64_t ld_out) {
  for_vectors(columns, [&](int64_t n, auto lanes) {
    const auto value = columns_of(product, n, lanes);
    for (int64_t t = 0; t < tokens; ++t) store(out + t * ld_out + n, value(t), lanes);
  });
}

}  // namespace
}  // namespace moco::MOCO_ISA
