// The steps around the two products of attention in int16: operands as whole numbers, and the softmax between them.
#pragma once

#include "kernels/gemm/int16.h"
#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

using PairVec = uint16_t __attribute__((vector_size(MOCO_VECTOR_BYTES)));  // two numbers in each word

// The upper half of each product.
inline __attribute__((always_inline)) PairVec high_product(PairVec a, PairVec b) {
#if defined(MOCO_X86_VECTORS) && MOCO_VECTOR_BYTES == 64
  return (PairVec)_mm512_mulhi_epu16((__m512i)a, (__m512i)b);
#elif defined(MOCO_X86_VECTORS)
  return (PairVec)_mm256_mulhi_epu16((__m256i)a, (__m256i)b);
#else
  const BitVec low = ((BitVec)a & 0xffff) * ((BitVec)b & 0xffff) >> 16;
  const BitVec high = ((BitVec)a >> 16) * ((BitVec)b >> 16) & 0xffff0000;
  return (PairVec)(low | high);
#endif
}

// v >> n for n from 0 to 15.
inline __attribute__((always_inline)) PairVec shift_right(PairVec v, PairVec n) {
#if defined(MOCO_X86_VECTORS) && MOCO_VECTOR_BYTES == 64
  return (PairVec)_mm512_srlv_epi16((__m512i)v, (__m512i)n);
#elif defined(MOCO_X86_VECTORS)
  // No such instruction: the upper half of 2 v * 2^(15 - n), for v < 2^15. A lane's upper byte is 0 in n.
  const __m256i lower = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1,  //
                                         0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1);
  const __m256i upper = _mm256_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                         -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m256i power = _mm256_or_si256(_mm256_shuffle_epi8(lower, (__m256i)n),
                                        _mm256_slli_epi16(_mm256_shuffle_epi8(upper, (__m256i)n), 8));
  return high_product(v + v, (PairVec)power);
#else
  return v >> n;
#endif
}

// 2^14 * 2^(-x / 2^12), rounded to the nearest whole number, error up to 2e-4 of it besides: whole octaves are shifts,
// what is left t is the minimax polynomial 1 - 0.6916 t + 0.2312 t^2 - 0.0396 t^3 with 1 at t = 0, in 2^-15.
inline __attribute__((always_inline)) PairVec exp2_of_minus(PairVec x) {
  const PairVec t = x << 4;  // in 2^-16, what does not fit falls off
  PairVec p = (PairVec){} + 7574 - high_product(t, (PairVec){} + 1298);
  p = (PairVec){} + 22662 - high_product(t, p);
  p = (PairVec){} + 32767 - high_product(t, p);
  return (shift_right(p, x >> 12) + 1) >> 1;
}

inline int32_t largest(IntVec v) {
#pragma GCC unroll 4
  for (int32_t half = kWidth / 2; half > 0; half /= 2) {
    const IntVec other = __builtin_shuffle(v, lane_numbers() ^ half);
    v = v > other ? v : other;
  }
  return v[0];
}

// Sizes are compared by their bits, which are in the same order; those of what is not finite come last.
float largest(const float* x, int64_t ld, int64_t tokens, int64_t size) {
  IntVec most = {};
  for (int64_t t = 0; t < tokens; ++t) {
    for_vectors(size, [&](int64_t i, auto lanes) {
      const auto bits = (IntVec)load(x + t * ld + i, lanes) & 0x7fffffff;
      most = bits > most ? bits : most;
    });
  }
  const int32_t bits = largest(most);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value + 0.0F * value;
}

// Rounded to the nearest whole number, in the lower half of each word: |v| < 2^15.
inline BitVec to_int16(Vec v) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves no fraction, and v in the lowest bits
  return (BitVec)(v + kRound);
}
inline BitVec pair_of(BitVec low, BitVec high) { return (low & 0xffff) | (high << 16); }

inline void store_words(uint32_t* p, BitVec v, Whole) { memcpy(p, &v, sizeof v); }
inline void store_words(uint32_t* p, BitVec v, Tail tail) { memcpy(p, &v, static_cast<size_t>(tail.lanes) * 4); }

void halves_to_int16(const float* x, int64_t ld, float factor, int64_t tokens, int64_t size, uint32_t* out) {
  const int64_t half = size / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    for_vectors(half, [&](int64_t i, auto lanes) {
      const BitVec low = to_int16(load(x + t * ld + i, lanes) * factor);
      const BitVec high = to_int16(load(x + t * ld + half + i, lanes) * factor);
      store_words(out + t * half + i, pair_of(low, high), lanes);
    });
  }
}

void values_to_int16(const float* values, int64_t ld, float factor, int64_t tokens, int64_t size, uint32_t* out) {
  for (int64_t group = 0; group < tokens; group += 2 * kKeyStep) {
    for (int64_t t = group; t < group + kKeyStep; ++t) {
      for_vectors(size, [&](int64_t i, auto lanes) {
        const auto number = [&](int64_t token) {
          return token < tokens ? to_int16(load(values + token * ld + i, lanes) * factor) : BitVec{};
        };
        store_words(out + i, pair_of(number(t), number(t + kKeyStep)), lanes);
      });
      out += size;
    }
  }
}

inline IntVec load_scores(const int32_t* p) {
  IntVec v;
  memcpy(&v, p, sizeof v);
  return v;
}
// Ones in the lanes of those keys from k on that are at least `first` and less than `last`.
inline IntVec there(int64_t k, int64_t first, int64_t last) {
  const IntVec key = lane_numbers() + static_cast<int32_t>(k);
  return (key >= static_cast<int32_t>(first)) & (key < static_cast<int32_t>(last));
}

inline int32_t largest_of_keys(const int32_t* scores, int64_t first, int64_t last) {
  IntVec top = IntVec{} + scores[first];
  for (int64_t k = first / kWidth * kWidth; k < last; k += kWidth) {
    IntVec score = load_scores(scores + k);
    if (k < first || k + kWidth > last) score = there(k, first, last) ? score : top;
    top = score > top ? score : top;
  }
  return largest(top);
}

// The weights of one query for a span of keys from `begin` to `end`, of which those from `first` to `last` have
// weights; returns their sum. top: the largest score of these.
inline int32_t weights_of_span(const int32_t* score, float scale, int32_t top, int64_t begin, int64_t end,
                               int64_t first, int64_t last, uint32_t* weight) {
  IntVec total = {};
  for (int64_t group = begin; group < end; group += 2 * kKeyStep) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kKeyStep; i += kWidth) {
      const auto distance = [&](int64_t k) {
        // Behind the row's keys may stand anything: what does not fit there falls off, as of words it may.
        const auto words = (IntVec)(BitVec{} + static_cast<uint32_t>(top) - (BitVec)load_scores(score + k));
        const Vec below = __builtin_convertvector(words, Vec) * scale;
        return (BitVec) __builtin_convertvector(min(below, splat(65535.0F)), IntVec);
      };
      const int64_t low = group + i;
      const int64_t high = low + kKeyStep;
      BitVec pairs = (BitVec)exp2_of_minus((PairVec)pair_of(distance(low), distance(high)));
      if (low < first || high + kWidth > last) {
        pairs &= pair_of((BitVec)there(low, first, last), (BitVec)there(high, first, last));
      }
      total = add_pairs(total, pairs, BitVec{} + 0x00010001);
      store_words(weight + group / 2 + i, pairs, Whole{});
    }
  }
#pragma GCC unroll 4
  for (int32_t half = kWidth / 2; half > 0; half /= 2) total += __builtin_shuffle(total, lane_numbers() ^ half);
  return total[0];
}

// Parts of spans from their sums: each as much smaller as its largest score is below that of all.
inline void parts_of_spans(int64_t spans, const int32_t* tops, float scale, float* parts) {
  constexpr float kLn2 = 0.693147181F;
  int32_t top = tops[0];
  for (int64_t s = 1; s < spans; ++s) top = tops[s] > top ? tops[s] : top;
  float total = 0;
  for (int64_t s = 0; s < spans; ++s) {
    const auto below = static_cast<float>(static_cast<uint32_t>(top) - static_cast<uint32_t>(tops[s]));
    const float factor = parts[s] == 0 ? 0 : exp(splat(below * scale * (-kLn2 / 4096)))[0];
    total += parts[s] * factor;
    parts[s] = factor;
  }
  for (int64_t s = 0; s < spans; ++s) parts[s] /= total;
}

void softmax_int16(const int32_t* scores, int64_t ld_scores, float scale, int64_t queries, int64_t first, int64_t last,
                   int64_t keys, uint32_t* weights, int64_t ld_weights, float* parts, int64_t ld_parts, int32_t* tops) {
  for (int64_t q = 0; q < queries; ++q) {
    const int32_t* score = scores + q * ld_scores;
    float* part = parts + q * ld_parts;
    int64_t spans = 0;
    for (int64_t begin = 0; begin < keys; begin += kKeySpan) {
      const int64_t end = keys - begin < kKeySpan ? keys : begin + kKeySpan;
      const int64_t from = first > begin ? first : begin;
      const int64_t to = last < end ? last : end;
      // Of a span without keys of its own the weights become zero whatever the top is, and it is not above all others.
      tops[spans] = largest_of_keys(score, from < to ? from : first, from < to ? to : first + 1);
      part[spans] = static_cast<float>(
          weights_of_span(score, scale, tops[spans], begin, end, from, to, weights + q * ld_weights));
      ++spans;
    }
    if (spans == 1) {
      part[0] = 1.0F / part[0];
    } else {
      parts_of_spans(spans, tops, scale, part);
    }
  }
}

void add_received_int16(const uint32_t* weights, int64_t ld_weights, const float* part, int64_t ld_parts,
                        int64_t queries, int64_t keys, float* received) {
  for (int64_t group = 0; group < keys; group += 2 * kKeyStep) {
    for (int64_t half = 0; half < 2 && group + half * kKeyStep < keys; ++half) {
      const int64_t begin = group + half * kKeyStep;
      for_vectors(keys - begin < kKeyStep ? keys - begin : kKeyStep, [&](int64_t i, auto lanes) {
        Vec sum = load(received + begin + i, lanes);
        for (int64_t q = 0; q < queries; ++q) {
          BitVec pairs;
          memcpy(&pairs, weights + q * ld_weights + group / 2 + i, sizeof pairs);
          const BitVec number = half == 0 ? pairs & 0xffff : pairs >> 16;
          sum += __builtin_convertvector((IntVec)number, Vec) * part[q * ld_parts];
        }
        store(received + begin + i, sum, lanes);
      });
    }
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
