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
  const auto intermediate = [&](int64_t count) {
    static thread_local Scratch inner, product;  // here, so that it is the thread's own that runs this
    return Intermediate<T>{inner.of<T>(count * ld_inner), product.of<float>(count * D)};
  };
  const int64_t threads = at::get_num_threads();
  const int64_t tiles = (tokens + Linear::kTile - 1) / Linear::kTile;
  const int64_t panels = stages.begin()->panels.size();
  if (tiles < threads || (tiles < 4 * threads && panels >= threads && threads > 1)) {
    const Intermediate<T> shared = intermediate(tokens);
    for (const Stage<T>& stage : stages) {
      parallel_tasks(stage.panels.size(), stage.flops, [&](int64_t p) { stage.run({0, tokens}, {p, p + 1}, shared); });
    }
    return;
  }
  int64_t flops = 0;
  for (const Stage<T>& stage : stages) flops += stage.flops;
  // About four tiles at a time read a layer's weights seldom enough (12 x 768: 4% faster than one tile, 8 no better),
  // in chunks as equal as they can be.
  const int64_t rounds = (tiles + 4 * threads - 1) / (4 * threads);
  const int64_t tasks = std::min(tiles, threads * rounds);
  parallel_tasks(tasks, flops, [&](int64_t task) {
    const Range range{task * tiles / tasks * Linear::kTile,
                      std::min(tokens, (task + 1) * tiles / tasks * Linear::kTile)};
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
