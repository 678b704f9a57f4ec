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
  Quantized quantized;
};

// How much of it a token needs.
struct Widths {
  int64_t inner = 0, product = 0, quantized = 0;
  // A stride of whole pages would crowd a tile into few sets of the cache.
  int64_t ld_quantized() const { return quantized + 64; }
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
void run_stages(int64_t tokens, Widths widths, std::initializer_list<Stage<T>> stages) {
  const auto intermediate = [&](int64_t count) {
    // Here, so that it is the thread's own that runs this.
    static thread_local Scratch inner, product, values, scales;
    float* scale = scales.of<float>(2 * count);
    return Intermediate<T>{
        inner.of<T>(count * widths.inner),
        product.of<float>(count * widths.product),
        {values.of<uint8_t>(count * widths.ld_quantized()), widths.ld_quantized(), scale, scale + count}};
  };
  const int64_t threads = at::get_num_threads();
  const int64_t tiles = (tokens + Linear::kTile - 1) / Linear::kTile;
  const auto fewer_flops = [](const Stage<T>& a, const Stage<T>& b) { return a.flops < b.flops; };
  const int64_t panels = std::max_element(stages.begin(), stages.end(), fewer_flops)->panels.size();
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

// Quantises what a product reads, where its weights are int8; operand(range of tokens, intermediate): that.
template <typename T, typename F>
Stage<T> quantize_stage(const Linear& linear, int64_t tokens, const F& operand) {
  return {
      linear.tiles_to_quantize(tokens), 20 * tokens * linear.quantized_inputs(),
      [&](Range t, Range tiles, Intermediate<T> between) { linear.quantize(operand(t, between), t.size(), tiles); }};
}

// out = activation(x weight^T + bias) for all outputs. x: (tokens, inputs); out: (tokens, outputs)
template <typename T>
void parallel_apply(const Linear& linear, const T* x, int64_t ld_x, int64_t tokens, Activation activation, T* out,
                    int64_t ld_out) {
  const auto operand = [&](Range t, const Intermediate<T>& between) {
    return Operand<T>{x + t.first * ld_x, ld_x, between.quantized};
  };
  run_stages<T>(tokens, {.quantized = linear.quantized_inputs()},
                {quantize_stage<T>(linear, tokens, operand),
                 {linear.panels(), linear.flops(tokens), [&](Range t, Range panels, Intermediate<T> between) {
                    linear.apply(operand(t, between), t.size(), panels, activation, out + t.first * ld_out, ld_out);
                  }}});
}

}  // namespace moco
