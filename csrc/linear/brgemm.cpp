#include "linear/brgemm.h"

#include <algorithm>

#include "core/torch_brgemm.h"
#include "linear/linear.h"

namespace moco::brgemm {

// f(first column, number of columns) for every block of columns.
template <typename F>
static void for_blocks(int64_t columns, const F& f) {
  for (int64_t n = 0; n < columns; n += kBlock) f(n, std::min(kBlock, columns - n));
}

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const Columns& b, float* c,
              int64_t ld_c, bool add) {
  for_blocks(N, [&](int64_t n, int64_t columns) {
    const auto* block = static_cast<const bfloat16*>(b.words) + n / kBlock * b.block * 2;
    torch_brgemm()->bfloat16_(M, columns, K, ld_a, b.ld, ld_c, add, a, block, c + n, /*is_vnni=*/true);
  });
}

void multiply_int8(int64_t tokens, int64_t columns, int64_t inputs, const Quantized& x, const Columns& weights,
                   const float* scale, const float* sums, float* c, int64_t ld_c) {
  alignas(64) int32_t product[Linear::kTile * kBlock];
  for (int64_t first = 0; first < tokens; first += Linear::kTile) {
    const int64_t count = std::min(Linear::kTile, tokens - first);
    const Quantized some = x.from(first);
    for_blocks(columns, [&](int64_t n, int64_t width) {
      const auto* block = static_cast<const int8_t*>(weights.words) + n / kBlock * weights.block * kWordBytes;
      torch_brgemm()->int8(count, width, round_up(inputs, kInt8Inputs), some.ld, weights.ld, kBlock, false, some.values,
                           block, product, /*is_vnni=*/true);
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t j = 0; j < width; ++j) {
          const float sum = static_cast<float>(product[t * kBlock + j]) - sums[n + j] * some.zero[t];
          c[(first + t) * ld_c + n + j] = sum * (scale[n + j] * some.scale[t]);
        }
      }
    });
  }
}

}  // namespace moco::brgemm
