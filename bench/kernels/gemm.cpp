// The products of one instruction set on shapes of MiniLM, against what the processor multiplies in a loop without
// memory: built and run by bench_kernels.py, with the table of that instruction set.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/gemm/floats.h"
#include "kernels/gemm/int8.h"
#include "rates.h"

namespace {

using namespace moco;
using namespace moco::MOCO_ISA;

constexpr int64_t kTokensInAll = 128;

// GFLOP/s of F's own multiplication on registers: independent sums, no memory.
template <typename F, int inputs_of_word>
double peak() {
  constexpr int kSums = 10, kTimes = 1000;
  typename F::Sum all[kSums] = {};
  const double found = rate(2.0 * kSums * kTimes * kWidth * inputs_of_word * F::kSteps, [&] {
    typename F::Sum sums[kSums];
    memcpy(sums, all, sizeof all);
    BitVec token[F::kSteps], weight[F::kSteps];
    for (int64_t step = 0; step < F::kSteps; ++step) token[step] = weight[step] = BitVec{} + 1;
    for (int i = 0; i < kTimes; ++i) {
#pragma GCC unroll 10
      for (int j = 0; j < kSums; ++j) {
        // Other weights, for all that the compiler knows.
        asm("" : "+x"(weight[0]) : "r"(j));
        if constexpr (F::kSteps == 2) asm("" : "+x"(weight[1]) : "r"(j));
        F::add(sums[j], token, weight);
      }
    }
    memcpy(all, sums, sizeof all);
  });
  asm volatile("" ::"m"(all));
  return found;
}

#ifdef MOCO_AMX
// The same of the products of tiles.
template <typename F, int inputs_of_word>
double peak_of_tiles() {
  constexpr int kTimes = 1000;
  configure_tiles(kStripTokens);
  const double flops_of_tile = 2.0 * kTileTokens * kBlock * kTileWords * inputs_of_word;
  const double found = rate(4 * kTimes * flops_of_tile, [] {
    for (int i = 0; i < kTimes; ++i) {
      F::template add<0>();
      F::template add<1>();
      F::template add<2>();
      F::template add<3>();
    }
  });
  _tile_release();
  return found;
}
#endif

double peak_of_bfloat16() {
#ifdef MOCO_AMX
  return peak_of_tiles<BFloat16Tiles, 2>();
#elif defined(MOCO_BFLOAT16)
  return peak<BFloat16Products, 2>();
#else
  return 0;
#endif
}
double peak_of_int8() {
#ifdef MOCO_AMX
  return peak_of_tiles<Int8Tiles, 4>();
#else
  return peak<Int8Products, 4>();
#endif
}

void report(const char* form, int64_t inputs, int64_t outputs, double gflops, double most) {
  std::printf("| %s | %s | %ld x %ld | %.0f | %.0f%% |\n", table.isa, form, static_cast<long>(inputs),
              static_cast<long>(outputs), gflops, 100 * gflops / most);
}

template <typename F>
double rate_of_layer(int64_t inputs, int64_t outputs, const F& f) {
  return rate(2.0 * static_cast<double>(kTokensInAll * inputs * outputs), [&] { run_layer(kTokensInAll, outputs, f); });
}

template <typename T>
void measure_floats(const char* form, int64_t inputs, int64_t outputs, int64_t depth, double most) {
  const int64_t inputs_of_word = kWordBytes / static_cast<int64_t>(sizeof(T));
  const std::vector<T> x(static_cast<size_t>(kTokensInAll * inputs)), w(static_cast<size_t>(outputs * inputs));
  std::vector<float> c(static_cast<size_t>(kTokens * kPanel));
  const auto* words = reinterpret_cast<const uint32_t*>(w.data());
  const int64_t block = inputs / inputs_of_word * kBlock;
  const double gflops = rate_of_layer(inputs, outputs, [&](int64_t n, int64_t t, int64_t) {
    for (int64_t k = 0; k < inputs; k += depth) {
      const Columns weights{words + n / kBlock * block + k / inputs_of_word * kBlock, kBlock, block};
      multiply(kTokens, kPanel, std::min(depth, inputs - k), x.data() + t * inputs + k, inputs, weights, c.data(),
               kPanel, k > 0);
    }
  });
  report(form, inputs, outputs, gflops, most);
}

void measure_int8(int64_t inputs, int64_t outputs, double most) {
  std::vector<uint8_t> x(static_cast<size_t>(kTokensInAll * (inputs + 64)));
  const std::vector<int8_t> w(static_cast<size_t>(outputs * inputs));
  std::vector<float> c(static_cast<size_t>(kTokens * kPanel)), scales(static_cast<size_t>(kTokensInAll)),
      of_outputs(static_cast<size_t>(outputs));
  const int64_t block = inputs / kWordBytes * kBlock;
  const Quantized tokens{x.data(), inputs + 64, scales.data(), scales.data()};
  const double gflops = rate_of_layer(inputs, outputs, [&](int64_t n, int64_t t, int64_t) {
    const Columns weights{w.data() + n / kBlock * block * kWordBytes, kBlock, block};
    multiply_int8(kTokens, kPanel, inputs, tokens.from(t), weights, of_outputs.data() + n, of_outputs.data() + n,
                  c.data(), kPanel);
  });
  report("int8", inputs, outputs, gflops, most);
}

}  // namespace

int main() {
  ask_for_tiles();
  for (const auto& [inputs, outputs] : {std::pair<int64_t, int64_t>{384, 1536}, {1536, 384}, {768, 3072}}) {
    measure_floats<float>("float32", inputs, outputs, 384, peak<Float32Products, 1>());
#ifdef MOCO_BFLOAT16
    measure_floats<bfloat16>("bfloat16", inputs, outputs, 768, peak_of_bfloat16());
#endif
    measure_int8(inputs, outputs, peak_of_int8());
  }
}
