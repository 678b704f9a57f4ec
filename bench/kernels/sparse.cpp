// Products with weights without their zeros, over those with all weights, both of one instruction set: built and run by
// bench_kernels.py. Where the zeros are is random; blocks are (outputs x inputs).
#include "kernels/gemm/sparse.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "kernels/gemm/floats.h"
#include "rates.h"

namespace {

using namespace moco;
using namespace moco::MOCO_ISA;

constexpr int64_t kGroups = kSparsePanel / kSparseGroup, kDepth = 384;

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

// Random lists of entries for every panel of a layer.
struct Weights {
  int64_t pieces;
  std::vector<uint16_t> inputs;
  std::vector<float> weights;
  std::vector<int64_t> ends, first;
  std::vector<uint8_t> outputs;

  Weights(int64_t words, int64_t outputs_in_all, double density, int64_t piece, size_t lists, int64_t run)
      : pieces((words + piece - 1) / piece) {
    std::mt19937 generator(1);
    std::bernoulli_distribution stays(density);
    for (int64_t panel = 0; panel < outputs_in_all / kSparsePanel; ++panel) {
      first.push_back(std::ssize(inputs) / static_cast<int64_t>(lists));
      for (int64_t i = 0; i < pieces * kGroups; ++i) {
        const int64_t begin = i / kGroups * piece;
        std::vector<std::vector<int64_t>> each(lists);
        size_t steps = 0;
        for (auto& own : each) {
          for (int64_t k = begin; k < std::min(begin + piece, words); k += run) {
            if (stays(generator)) own.push_back(k);
          }
          steps = std::max(steps, own.size());
        }
        for (size_t step = 0; step < steps; ++step) {
          for (const auto& own : each) inputs.push_back(static_cast<uint16_t>(step < own.size() ? own[step] : begin));
        }
        ends.push_back(std::ssize(inputs) / static_cast<int64_t>(lists));
      }
    }
    weights.resize(inputs.size() / lists * static_cast<size_t>(kSparseGroup * run), 0.01F);
    for (int64_t o = 0; o < kSparsePanel; ++o) outputs.push_back(static_cast<uint8_t>(o));
  }
  SparsePanel panel(int64_t n) const {
    const int64_t i = n / kSparsePanel;
    return {inputs.data(),
            weights.data(),
            ends.data() + i * pieces * kGroups,
            outputs.data(),
            first[static_cast<size_t>(i)],
            pieces};
  }
};

void measure(int64_t tokens, int64_t inputs, int64_t outputs) {
  std::vector<float> c(static_cast<size_t>(kTokens * kPanel));
  const std::vector<float> ones(static_cast<size_t>(std::max(tokens, outputs)), 1.0F);
  const auto x = aligned<float>(tokens * (inputs + 16)), w = aligned<float>(inputs * outputs);
  const auto bytes = aligned<uint8_t>(tokens * (inputs + 64)), w8 = aligned<uint8_t>(inputs * outputs);
  const Quantized floats{reinterpret_cast<uint8_t*>(x.get()), (inputs + 16) * kWordBytes, nullptr, nullptr};
  const Quantized quantized{bytes.get(), inputs + 64, const_cast<float*>(ones.data()), const_cast<float*>(ones.data())};
  const double dense = rate_of_layer(tokens, inputs, outputs, [&](int64_t n, int64_t t, int64_t count) {
    for (int64_t k = 0; k < inputs; k += kDepth) {
      const Columns columns{w.get() + n * inputs + k * kBlock, kBlock, inputs * kBlock};
      multiply(count, kPanel, std::min(kDepth, inputs - k), x.get() + t * inputs + k, inputs, columns, c.data(), kPanel,
               k > 0);
    }
  });
  const double dense_int8 = rate_of_layer(tokens, inputs, outputs, [&](int64_t n, int64_t t, int64_t count) {
    const Columns columns{w8.get() + n * inputs, kBlock, inputs / kWordBytes * kBlock};
    multiply_int8(count, kPanel, inputs, quantized.from(t), columns, &ones[static_cast<size_t>(n)],
                  &ones[static_cast<size_t>(n)], c.data(), kPanel);
  });
  for (const double density : {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}) {
    const auto over_dense = [&](size_t lists, int64_t run, SparseKernels::Multiply kernel) {
      const Weights weights(inputs, outputs, density, kDepth, lists, run);
      return rate_of_layer(tokens, inputs, outputs,
                           [&](int64_t n, int64_t t, int64_t count) {
                             kernel(count, kPanel, floats.from(t), weights.panel(n), c.data(), kPanel);
                           }) /
             dense;
    };
    const Weights weights(inputs / kWordBytes, outputs, density, inputs / kWordBytes, kSparseGroup, 1);
    const double int8 = rate_of_layer(tokens, inputs, outputs, [&](int64_t n, int64_t t, int64_t count) {
      multiply_sparse_int8(count, kPanel, quantized.from(t), weights.panel(n), &ones[static_cast<size_t>(n)],
                           &ones[static_cast<size_t>(n)], c.data(), kPanel);
    });
    std::printf("| %s | %ld | %ld x %ld | %.0f%% | %.2f | %.2f | %.2f | %.2f |\n", table.isa, static_cast<long>(tokens),
                static_cast<long>(inputs), static_cast<long>(outputs), 100 * (1 - density),
                over_dense(1, 1, table.sparse.multiply_4x1), over_dense(4, 4, table.sparse.multiply_1x4),
                over_dense(4, 1, table.sparse.multiply_1x1), int8 / dense_int8);
  }
}

}  // namespace

int main() {
  for (const auto& [inputs, outputs] :
       {std::pair<int64_t, int64_t>{384, 1536}, {1536, 384}, {768, 3072}, {1024, 4096}}) {
    for (const int64_t tokens : {128, 25}) measure(tokens, inputs, outputs);
  }
}
