// Products on the tiles of AMX against plain loops, on any processor: the instructions of tiles are emulated, as
// Intel's manual describes them. Prints how many sums differ.
#include <immintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace emulated {

struct Sizes {  // as `ldtilecfg` reads them
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
Sizes sizes;
char tiles[8][16][64];

void zero(int tile) { memset(tiles[tile], 0, sizeof tiles[tile]); }
void configure(const void* memory) {
  memcpy(&sizes, memory, sizeof sizes);
  for (int tile = 0; tile < 8; ++tile) zero(tile);
}
void load(int tile, const char* from, int64_t ld) {
  zero(tile);
  for (int row = 0; row < sizes.rows[tile]; ++row) memcpy(tiles[tile][row], from + row * ld, sizes.row_bytes[tile]);
}
void store(int tile, char* to, int64_t ld) {
  for (int row = 0; row < sizes.rows[tile]; ++row) memcpy(to + row * ld, tiles[tile][row], sizes.row_bytes[tile]);
}

template <typename T>
T read(const char* p) {
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}
float bfloat16_of(const char* p) {
  const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(p)) << 16;
  return read<float>(reinterpret_cast<const char*>(&bits));
}
float product_of_word(const char* a, const char* b, float) {
  return bfloat16_of(a) * bfloat16_of(b) + bfloat16_of(a + 2) * bfloat16_of(b + 2);
}
int32_t product_of_word(const char* a, const char* b, int32_t) {
  int32_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += read<uint8_t>(a + i) * read<int8_t>(b + i);
  return sum;
}

template <typename Sum>
void add_products(int sums, int a, int b) {
  for (int row = 0; row < sizes.rows[a]; ++row) {
    for (int column = 0; column < 16; ++column) {
      auto sum = read<Sum>(&tiles[sums][row][4 * column]);
      for (int word = 0; word < 16; ++word) {
        sum += product_of_word(&tiles[a][row][4 * word], &tiles[b][word][4 * column], Sum{});
      }
      memcpy(&tiles[sums][row][4 * column], &sum, sizeof sum);
    }
  }
}

}  // namespace emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated::configure
#define _tile_release()
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_zero emulated::zero
#define _tile_dpbusd emulated::add_products<int32_t>
#define _tile_dpbf16ps emulated::add_products<float>
#include "kernels/gemm/amx.h"

namespace {

using namespace moco;
using namespace moco::MOCO_ISA;

// The number of sums that differ from those of plain loops. ld_a, ld_b, block: in words
template <typename F, typename Sum>
int64_t wrong_sums(int64_t M, int64_t N, int64_t words, const std::vector<char>& a, int64_t ld_a,
                   const std::vector<char>& b, int64_t ld_b, int64_t block) {
  std::vector<Sum> c(static_cast<size_t>(M * N), Sum{-1});
  for_tile_sums<F>(M, N, words, a.data(), ld_a * kWordBytes, {b.data(), ld_b, block},
                   [&](int64_t m, int64_t n, typename F::Sum sum) { memcpy(&c[m * N + n], &sum, sizeof sum); });
  int64_t wrong = 0;
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      Sum sum = 0;
      for (int64_t k = 0; k < words; ++k) {
        sum += emulated::product_of_word(&a[(m * ld_a + k) * kWordBytes],
                                         &b[(n / kBlock * block + k * ld_b + n % kBlock) * kWordBytes], Sum{});
      }
      wrong += c[m * N + n] != sum;
    }
  }
  return wrong;
}

std::vector<char> random_words(int64_t words, bool bytes, std::mt19937& random) {
  std::vector<char> memory(static_cast<size_t>(words * kWordBytes));
  if (bytes) {
    for (char& byte : memory) byte = static_cast<char>(random());
    return memory;
  }
  for (size_t i = 0; i < memory.size(); i += 2) {  // numbers whose products are summed exactly
    const float value = (static_cast<float>(random() % 64) - 32) / 8;
    memcpy(&memory[i], reinterpret_cast<const char*>(&value) + 2, 2);
  }
  return memory;
}

}  // namespace

int main() {
  std::mt19937 random(0);
  int64_t wrong = 0, all = 0;
  for (const int64_t M : {1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 64, 70}) {
    for (const int64_t N : {16, 32, 48, 64, 80}) {
      for (const int64_t words : {1, 7, 8, 16, 24, 32, 33, 96}) {
        for (const bool side_by_side : {false, true}) {  // blocks of columns, as values are; else one after the other
          const int64_t ld_a = words + (side_by_side ? 5 : 0);
          const int64_t ld_b = side_by_side ? N : kBlock;
          const int64_t block = side_by_side ? kBlock : words * kBlock;
          for (const bool bytes : {false, true}) {
            // No more memory than there must be: what is read beyond it is found by a sanitizer.
            const auto a = random_words((M - 1) * ld_a + words, bytes, random);
            const auto b = random_words(words * N, bytes, random);
            wrong += bytes ? wrong_sums<Int8Tiles, int32_t>(M, N, words, a, ld_a, b, ld_b, block)
                           : wrong_sums<BFloat16Tiles, float>(M, N, words, a, ld_a, b, ld_b, block);
            all += M * N;
          }
        }
      }
    }
  }
  std::printf("%lld of %lld sums differ\n", static_cast<long long>(wrong), static_cast<long long>(all));
}
