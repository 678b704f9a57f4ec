// Two orders of the same loops: products of many tokens, and of few.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <initializer_list>

#include "gemm.h"
#include "parallel.h"
#include "scratch.h"

namespace moco {

// What the stages hand to each other, for the tokens of one task, counted from its first token.
template <typename T>
struct Intermediate {
  T* inner;        // (tokens, ld_inner)
  float* product;  // (tokens, D)
};

template <typename T>
struct Stage {
  Range panels;
  int64_t flops;
  std::function<void(Range tokens, Range panels, Intermediate<T>)> run;
};

// Runs stages that end in a LayerNorm of whole tokens one after the other. Many tokens: every thread takes chunks of
// them through all stages, what lies between stays in its cache. Few tokens: the threads share out the panels of each
// stage instead, so that all of them work and each weight is read by one of them only.
template <typename T>
void run_stages(int64_t tokens, int64_t ld_inner, int64_t D, std::initializer_list<Stage<T>> stages) {
  static thread_local Scratch inner, product;
  const auto intermediate = [&](int64_t count) {
    return Intermediate<T>{inner.of<T>(count * ld_inner), product.of<float>(count * D)};
  };
  const int64_t threads = at::get_num_threads();
  if (threads > 1 && tokens < 4 * Linear::kTile * threads) {
    const Intermediate<T> shared = intermediate(tokens);
    for (const Stage<T>& stage : stages) {
      parallel_tasks(stage.panels.size(), stage.flops, [&](int64_t p) { stage.run({0, tokens}, {p, p + 1}, shared); });
    }
    return;
  }
  int64_t flops = 0;
  for (const Stage<T>& stage : stages) flops += stage.flops;
  const int64_t chunk = tokens < 32 * Linear::kTile * threads ? Linear::kTile : 2 * Linear::kTile;
  parallel_tasks((tokens + chunk - 1) / chunk, flops, [&](int64_t task) {
    const Range range{task * chunk, std::min(tokens, (task + 1) * chunk)};
    const Intermediate<T> own = intermediate(range.size());
    for (const Stage<T>& stage : stages) stage.run(range, stage.panels, own);
  });
}

// out = activation(x weight^T + bias) for all outputs. x: (tokens, inputs); out: (tokens, outputs)
template <typename T>
void parallel_apply(const Linear& linear, const T* x, int64_t ld_x, int64_t tokens, Activation activation, T* out,
                    int64_t ld_out) {
  run_stages<T>(tokens, 0, 0, {{linear.panels(), linear.flops(tokens), [&](Range t, Range panels, Intermediate<T>) {
                                  linear.apply(x + t.first * ld_x, ld_x, t.size(), panels, activation,
                                               out + t.first * ld_out, ld_out);
                                }}});
}

}  // namespace moco
