// How fast something runs, for the programs beside this file.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

constexpr int64_t kTokens = 32, kPanel = 64;  // of a tile

// The most units of work a second, in 10^9, of several tries.
template <typename F>
double rate(double work, const F& f) {
  double best = 0;
  for (int i = 0; i < 9; ++i) {
    const auto start = std::chrono::steady_clock::now();
    std::chrono::duration<double> spent{};
    int64_t runs = 0;
    do {
      f();
      ++runs;
      spent = std::chrono::steady_clock::now() - start;
    } while (spent.count() < 0.03);
    best = std::max(best, work * static_cast<double>(runs) / spent.count() / 1e9);
  }
  return best;
}

// GFLOP/s of f(panel's first output, tile's first token, tile's tokens) for all panels and tiles, as a linear layer
// takes them.
template <typename F>
double rate_of_layer(int64_t tokens, int64_t inputs, int64_t outputs, const F& f) {
  return rate(2.0 * static_cast<double>(tokens * inputs * outputs), [&] {
    for (int64_t n = 0; n < outputs; n += kPanel) {
      for (int64_t t = 0; t < tokens; t += kTokens) f(n, t, std::min(kTokens, tokens - t));
    }
  });
}
