// Products with weights without their zeros, over those with all weights, both of one instruction set: built and run by
// bench_kernels.py. Where the zeros are is random; blocks are (outputs x inputs).
#include "kernels/gemm/sparse.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/gemm/floats.h"
#include "linear/sparse_steps.h"
#include "rates.h"

namespace {

using namespace moco;
using namespace moco::MOCO_ISA;

constexpr int64_t kDepth = 384;

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Memory as Scratch gives it: from the beginning of a cache line on.
template <typename T>
std::unique_ptr<T, Free> aligned(int64_t count) {
  const auto bytes = static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
  auto* memory = static_cast<T*>(std::aligned_alloc(64, bytes));
  memset(memory, 0, bytes);
  return std::unique_ptr<T, Free>(memory);
}

// A layer of random blocks, packed: words of 32 bits are weights of float32, or four int8.
SparseSteps random_weights(int64_t words, int64_t outputs, EntryShape shape, int64_t piece, double density) {
  std::mt19937 generator(1);
  std::bernoulli_distribution stays(density);
  std::vector<uint32_t> weights(static_cast<size_t>(words * outputs), 0);
  for (int64_t o = 0; o < outputs; o += shape.outputs) {
    for (int64_t k = 0; k < words; k += shape.run) {
      if (!stays(generator)) continue;
      for (int64_t i = o; i < o + shape.outputs; ++i) {
        for (int64_t j = k; j < k + shape.run; ++j) weights[static_cast<size_t>(i * words + j)] = 0x01010101;
      }
    }
  }
  return {{weights.data(), outputs, words}, shape, piece};
}

void measure(int64_t tokens, int64_t inputs, int64_t outputs) {
  std::vector<float> c(static_cast<size_t>(kTokens * kPanel));
  const std::vector<float> ones(static_cast<size_t>(std::max(tokens, outputs)), 1.0F);
  const int64_t room = round_up(tokens, kTokens);  // for whole strips
  const auto x = aligned<float>(room * (inputs + 16)), w = aligned<float>(inputs * outputs);
  const auto bytes = aligned<uint8_t>(room * (inputs + 64)), w8 = aligned<uint8_t>(inputs * outputs);
  const Quantized floats{reinterpret_cast<uint8_t*>(x.get()), (inputs + 16) * kWordBytes, nullptr, nullptr};
  const Quantized quantized{bytes.get(), inputs + 64, const_cast<float*>(ones.data()), const_cast<float*>(ones.data())};
  const auto dense = [&](int64_t n, int64_t t, int64_t count) {
    for (int64_t k = 0; k < inputs; k += kDepth) {
      const Columns columns{w.get() + n * inputs + k * kBlock, kBlock, inputs * kBlock};
      multiply(count, kPanel, std::min(kDepth, inputs - k), x.get() + t * inputs + k, inputs, columns, c.data(), kPanel,
               k > 0);
    }
  };
  const auto dense_int8 = [&](int64_t n, int64_t t, int64_t count) {
    const Columns columns{w8.get() + n * inputs, kBlock, inputs / kWordBytes * kBlock};
    multiply_int8(count, kPanel, inputs, quantized.from(t), columns, &ones[static_cast<size_t>(n)],
                  &ones[static_cast<size_t>(n)], c.data(), kPanel);
  };
  const auto over = [&](const auto& one, const auto& other) {
    return times_as_fast([&] { run_layer(tokens, outputs, one); }, [&] { run_layer(tokens, outputs, other); });
  };
  for (const double density : {0.1, 0.2, 0.3, 0.4, 0.5}) {
    const auto over_dense = [&](EntryShape shape, SparseKernels::Multiply kernel) {
      const SparseSteps weights = random_weights(inputs, outputs, shape, kDepth, density);
      return over(dense, [&](int64_t n, int64_t t, int64_t count) {
        kernel(count, kPanel, floats.from(t), weights.panel(n / kSparsePanel), c.data(), kPanel);
      });
    };
    const int64_t words = inputs / kWordBytes;
    const SparseSteps weights = random_weights(words, outputs, {1, 1}, words, density);
    const double int8 = over(dense_int8, [&](int64_t n, int64_t t, int64_t count) {
      multiply_sparse_int8(count, kPanel, quantized.from(t), weights.panel(n / kSparsePanel),
                           &ones[static_cast<size_t>(n)], &ones[static_cast<size_t>(n)], c.data(), kPanel);
    });
    std::printf("| %s | %ld | %ld x %ld | %.0f%% | %.2f | %.2f | %.2f | %.2f |\n", table.isa, static_cast<long>(tokens),
                static_cast<long>(inputs), static_cast<long>(outputs), 100 * (1 - density),
                over_dense({4, 1}, table.sparse.multiply_4x1), over_dense({1, 4}, table.sparse.multiply_1x4),
                over_dense({1, 1}, table.sparse.multiply_1x1), int8);
  }
}

}  // namespace

int main() {
  ask_for_tiles();
  for (const auto& [inputs, outputs] :
       {std::pair<int64_t, int64_t>{384, 1536}, {1536, 384}, {768, 3072}, {1024, 4096}}) {
    for (const int64_t tokens : {128, 25}) measure(tokens, inputs, outputs);
  }
}
