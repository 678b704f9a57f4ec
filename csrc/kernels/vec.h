// Vectors as wide as the instruction set, in the compiler's own vector types: one source for every set. All of it is
// internal to the file that includes it, so that no linker can share it between sets.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace moco::MOCO_ISA {
namespace {

constexpr int64_t kWidth = MOCO_VECTOR_BYTES / 4;  // lanes
using Vec = float __attribute__((vector_size(MOCO_VECTOR_BYTES)));
using IntVec = int32_t __attribute__((vector_size(MOCO_VECTOR_BYTES)));
using BitVec = uint32_t __attribute__((vector_size(MOCO_VECTOR_BYTES)));
using HalfVec = uint16_t __attribute__((vector_size(MOCO_VECTOR_BYTES / 2)));

// A whole vector of an array, or the lanes that are left at its end.
struct Whole {};
struct Tail {
  int64_t lanes;
};

// f(i, Whole{} or Tail{lanes}) for the vectors that cover n values.
template <typename F>
inline __attribute__((always_inline)) void for_vectors(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) f(i, Whole{});
  if (i < n) f(i, Tail{n - i});
}

inline Vec splat(float x) { return x - Vec{}; }

inline Vec from_bits(HalfVec half) { return (Vec)(__builtin_convertvector(half, BitVec) << 16); }

// Rounds to the nearest, ties to even; NaN stays NaN.
inline HalfVec to_bits(Vec v) {
  const BitVec bits = (BitVec)v;
  const BitVec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40, HalfVec);
}

inline Vec load(const float* p, Whole) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const float* p, Tail tail) {
  Vec v = {};
  memcpy(&v, p, static_cast<size_t>(tail.lanes) * sizeof(float));
  return v;
}
inline Vec load(const bfloat16* p, Whole) {
  HalfVec half;
  memcpy(&half, p, sizeof half);
  return from_bits(half);
}
inline Vec load(const bfloat16* p, Tail tail) {
  HalfVec half = {};
  memcpy(&half, p, static_cast<size_t>(tail.lanes) * sizeof(bfloat16));
  return from_bits(half);
}

inline void store(float* p, Vec v, Whole) { memcpy(p, &v, sizeof v); }
inline void store(float* p, Vec v, Tail tail) { memcpy(p, &v, static_cast<size_t>(tail.lanes) * sizeof(float)); }
inline void store(bfloat16* p, Vec v, Whole) {
  const HalfVec half = to_bits(v);
  memcpy(p, &half, sizeof half);
}
inline void store(bfloat16* p, Vec v, Tail tail) {
  const HalfVec half = to_bits(v);
  memcpy(p, &half, static_cast<size_t>(tail.lanes) * sizeof(bfloat16));
}

// 0, 1, ... kWidth - 1
inline IntVec lane_numbers() {
  IntVec lane;
  for (int32_t j = 0; j < kWidth; ++j) lane[j] = j;
  return lane;
}

// v; of a tail only its lanes, and behind them the lanes of another vector.
inline Vec first(Vec v, Whole, Vec) { return v; }
inline Vec first(Vec v, Tail tail, Vec behind) {
  return lane_numbers() < static_cast<int32_t>(tail.lanes) ? v : behind;
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }

// The sum, the largest, of all lanes: halves folded onto each other.
inline float sum(Vec v) {
#pragma GCC unroll 4
  for (int32_t half = kWidth / 2; half > 0; half /= 2) v += __builtin_shuffle(v, lane_numbers() ^ half);
  return v[0];
}

// Sums of kSumLanes numbers each, however wide a vector is: so that a sum over an array has the same bits with every
// instruction set (but for those without fused multiply-add).
constexpr int64_t kSumLanes = 16;
struct Sum {
  static constexpr int64_t kParts = kSumLanes / kWidth;
  Vec part[kParts] = {};

  float total() const {
    Vec v[kParts];
    memcpy(v, part, sizeof v);
#pragma GCC unroll 2
    for (int64_t half = kParts / 2; half > 0; half /= 2) {
#pragma GCC unroll 2
      for (int64_t p = 0; p < half; ++p) v[p] += v[p + half];
    }
    return sum(v[0]);
  }
};

// f(i, lanes, part of the sum) for the vectors that cover n values; f adds to the part, of a tail zeros behind it.
template <typename F>
inline __attribute__((always_inline)) void for_parts(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
#pragma GCC unroll 4
    for (int64_t part = 0; part < Sum::kParts; ++part) f(i + part * kWidth, Whole{}, part);
  }
#pragma GCC unroll 4
  for (int64_t part = 0; part < Sum::kParts; ++part, i += kWidth) {
    if (i + kWidth <= n) {
      f(i, Whole{}, part);
    } else if (i < n) {
      f(i, Tail{n - i}, part);
    }
  }
}

inline float max(Vec v) {
#pragma GCC unroll 4
  for (int32_t half = kWidth / 2; half > 0; half /= 2) v = max(v, __builtin_shuffle(v, lane_numbers() ^ half));
  return v[0];
}

// exp(x), relative error about 1e-7; as at -87 below it, as at 88 above it, the ends of what float can hold.
// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) is Cephes' polynomial.
inline Vec exp(Vec x) {
  x = x < -87.0F ? splat(-87.0F) : x > 88.0F ? splat(88.0F) : x;  // NaN stays
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves no fraction, and n in the lowest bits
  const Vec shifted = x * 1.44269504F + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Vec p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  return (Vec)((BitVec)p + ((BitVec)shifted << 23));
}

// exp(x) for x <= 0, relative error 1e-4, all that bfloat16 can tell, in half the time; of 0 it is 1; NaN stays.
// 2^y = 2^n 2^r with |r| <= 1 / 2, 2^r by the minimax polynomial of those that are 1 at 0.
inline Vec exp_to_8_bits(Vec x) {
  constexpr float kRound = 12582912.0F;  // as in exp
  const Vec y = max(splat(-126.0F), x * 1.44269504F);
  const Vec shifted = y + kRound;
  const Vec r = y - (shifted - kRound);
  Vec p = splat(0.0550086349F);
  p = p * r + 0.242210507F;
  p = p * r + 0.693282902F;
  p = p * r + 1.0F;
  return (Vec)((BitVec)p + ((BitVec)shifted << 23));
}

}  // namespace
}  // namespace moco::MOCO_ISA
