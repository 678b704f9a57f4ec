// Numbers of one kind as numbers of another, rounded to the nearest, of two equally near ones to the even one.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "tensor/dtype.h"

namespace moco {

inline float to_float(bfloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

inline float to_float(float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000U) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fU;
  const uint32_t fraction = x.bits & 0x3ffU;
  if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(fraction), -24), std::bit_cast<float>(sign));
  const uint32_t widened = exponent == 0x1f ? 0xffU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | widened << 23 | fraction << 13);
}

inline bfloat16 to_bfloat16(float x) {
  if (std::isnan(x)) return {0x7fc0};
  const auto bits = std::bit_cast<uint32_t>(x);
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

inline float16 to_float16(float x) {
  const auto sign = static_cast<uint16_t>((std::bit_cast<uint32_t>(x) >> 16) & 0x8000U);
  const float size = std::abs(x);
  const auto with_sign = [&](uint32_t bits) { return float16{static_cast<uint16_t>(sign | bits)}; };
  if (std::isnan(x)) return with_sign(0x7e00);
  constexpr float kSmallestToInfinity = 65520.0F;
  if (size >= kSmallestToInfinity) return with_sign(0x7c00);
  constexpr float kSmallestNormal = 6.103515625e-05F;  // 2^-14
  // Below it numbers lie 2^-24 apart, and the rounding mode of the processor is to the nearest even one.
  if (size < kSmallestNormal) return with_sign(static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 24))));
  const auto bits = std::bit_cast<uint32_t>(size);
  const uint32_t rounded = bits + 0xfffU + ((bits >> 13) & 1U);
  return with_sign((rounded >> 13) - ((127U - 15U) << 10));
}

// As a conversion in C++ does; a number that is not finite has no integer, and none is promised.
template <typename To, typename From>
To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, float16> || std::is_same_v<From, bfloat16>) {
    return convert<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, float16>) {
    return to_float16(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bfloat16>) {
    return to_bfloat16(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace moco
