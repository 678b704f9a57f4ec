// Tokens as bytes.
#pragma once

#include "kernels/vec.h"
#ifdef MOCO_X86_VECTORS
#include <immintrin.h>
#endif

namespace moco::MOCO_ISA {
namespace {

using ByteVec = uint8_t __attribute__((vector_size(MOCO_VECTOR_BYTES / 4)));

// v is from 0 to kMaxToken.
inline ByteVec bytes_of(Vec v) {
  const IntVec whole = __builtin_convertvector(v, IntVec);
#if defined(MOCO_X86_VECTORS) && MOCO_VECTOR_BYTES == 32
  // GCC 12 would take every lane out by itself.
  const __m128i halves =
      _mm_packus_epi32(_mm256_castsi256_si128((__m256i)whole), _mm256_extracti128_si256((__m256i)whole, 1));
  ByteVec bytes;
  _mm_storel_epi64((__m128i*)&bytes, _mm_packus_epi16(halves, halves));
  return bytes;
#else
  return __builtin_convertvector(whole, ByteVec);
#endif
}
inline void store_bytes(uint8_t* p, Vec v, Whole) {
  const ByteVec bytes = bytes_of(v);
  memcpy(p, &bytes, sizeof bytes);
}
inline void store_bytes(uint8_t* p, Vec v, Tail tail) {
  const ByteVec bytes = bytes_of(v);
  memcpy(p, &bytes, static_cast<size_t>(tail.lanes));
}

template <typename T>
void quantize(const T* x, int64_t ld, const float* factor, int64_t tokens, int64_t size, const Quantized& out) {
  for (int64_t t = 0; t < tokens; ++t) {
    const auto value = [&](int64_t k, auto lanes) { return load(x + t * ld + k, lanes) * load(factor + k, lanes); };
    Vec least = {};  // 0 is always between them
    Vec most = {};
    Vec broken = {};  // NaN where a number is not finite
    for_vectors(size, [&](int64_t k, auto lanes) {
      const Vec v = value(k, lanes);
      least = min(least, v);
      most = max(most, v);
      broken += v * 0.0F;
    });
    const float low = max(-least);  // as a size
    const float step = (max(most) + low) / static_cast<float>(kMaxToken) + sum(broken);
    const float per_step = step > 0.0F ? 1.0F / step : 0.0F;
    const float zero = static_cast<float>(static_cast<int32_t>(low * per_step + 0.5F));
    out.scale[t] = step;
    out.zero[t] = zero;
    const float round_up = zero + 0.5F;
    for_vectors(size, [&](int64_t k, auto lanes) {
      store_bytes(out.values + t * out.ld + k, min(value(k, lanes) * per_step + round_up, splat(kMaxToken)), lanes);
    });
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
