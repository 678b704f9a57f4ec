// How fast something runs, for the programs beside this file.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#ifdef MOCO_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

constexpr int64_t kTokens = 32, kPanel = 64;  // of a tile

// As in core/isa.cpp.
inline void ask_for_tiles() {
#ifdef MOCO_AMX
  syscall(SYS_arch_prctl, 0x1023, 18);
#endif
}

// Seconds of a call, over as many as take 0.02 s.
template <typename F>
double seconds_of(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> spent{};
  int64_t runs = 0;
  do {
    f();
    ++runs;
    spent = std::chrono::steady_clock::now() - start;
  } while (spent.count() < 0.02);
  return spent.count() / static_cast<double>(runs);
}

// The most units of work a second, in 10^9, of several tries.
template <typename F>
double rate(double work, const F& f) {
  double best = 0;
  for (int i = 0; i < 9; ++i) best = std::max(best, work / seconds_of(f) / 1e9);
  return best;
}

// The speed of g over that of f: the median of ratios, in turns.
template <typename F, typename G>
double times_as_fast(const F& f, const G& g) {
  std::vector<double> ratios;
  for (int i = 0; i < 9; ++i) ratios.push_back(seconds_of(f) / seconds_of(g));
  std::nth_element(ratios.begin(), ratios.begin() + 4, ratios.end());
  return ratios[4];
}

// f(panel's first output, tile's first token, tile's tokens) for all panels and tiles, as a linear layer takes them.
template <typename F>
void run_layer(int64_t tokens, int64_t outputs, const F& f) {
  for (int64_t n = 0; n < outputs; n += kPanel) {
    for (int64_t t = 0; t < tokens; t += kTokens) f(n, t, std::min(kTokens, tokens - t));
  }
}
