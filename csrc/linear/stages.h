// The two orders of the loops over tokens and weights: one for many tokens, one for few.
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>

#include "core/parallel.h"
#include "core/scratch.h"
#include "linear/linear.h"

namespace moco {

// Memory in which a stage leaves what the next one reads, for the tokens of one task, counted from its first token.
template <typename T>
struct StageBuffers {
  T* normalized;   // (tokens, D)
  T* inner;        // (tokens, ld_inner)
  float* product;  // (tokens, D)
  Quantized prepared;
};

// The number of values a token has in each of the buffers.
struct Widths {
  int64_t normalized = 0, inner = 0, product = 0, prepared = 0;  // the last in bytes
  // A stride of whole pages would crowd a tile into few sets of the cache.
  int64_t ld_prepared() const { return prepared + 64; }
};

// A step of a sub-layer; none where it has no panels.
template <typename T>
struct Stage {
  Range panels;
  int64_t flops;
  std::function<void(Range tokens, Range panels, StageBuffers<T>)> run;
};

// Runs the stages of a sub-layer one after the other. Many tokens: every thread takes chunks of them through all
// stages, and what lies between the stages stays in its cache. Few tokens: the threads share out the panels of each
// stage instead, so that all of them work and each weight is read by one of them only.
template <typename T>
void run_stages(int64_t tokens, Widths widths, std::initializer_list<Stage<T>> stages) {
  const auto buffers = [&](int64_t count) {
    // thread_local inside this function: the memory is that of the thread which runs the task.
    static thread_local Scratch normalized, inner, product, values, scales;
    float* scale = scales.of<float>(2 * count);
    const int64_t whole_tiles = round_up(count, Linear::kTile);  // what sparse products read is written in whole strips
    return StageBuffers<T>{
        normalized.of<T>(count * widths.normalized),
        inner.of<T>(count * widths.inner),
        product.of<float>(count * widths.product),
        {values.of<uint8_t>(whole_tiles * widths.ld_prepared()), widths.ld_prepared(), scale, scale + count}};
  };
  const int64_t threads = loop_threads();
  const int64_t tiles = (tokens + Linear::kTile - 1) / Linear::kTile;
  const auto fewer_flops = [](const Stage<T>& a, const Stage<T>& b) { return a.flops < b.flops; };
  const int64_t panels = std::max_element(stages.begin(), stages.end(), fewer_flops)->panels.size();
  // Few tokens: with fewer tiles than threads, some would idle in the other order. With fewer than four tiles a thread
  // they would all work but read the weights for too few tokens each, so the panels are shared out wherever there are
  // enough of them.
  if (tiles < threads || (tiles < 4 * threads && panels >= threads && threads > 1)) {
    const StageBuffers<T> shared = buffers(tokens);
    for (const Stage<T>& stage : stages) {
      parallel_tasks(stage.panels.size(), stage.flops, [&](int64_t p) { stage.run({0, tokens}, {p, p + 1}, shared); });
    }
    return;
  }
  int64_t flops = 0;
  for (const Stage<T>& stage : stages) flops += stage.flops;
  // Many tokens: chunks of four tiles at most. A chunk reads all weights of the layer once; with four tiles that is
  // seldom enough (12 x 768: 4% faster than with one, no slower than with eight).
  const std::vector<Range> chunks = shrinking_ranges(tiles, 1, 4);
  parallel_tasks(static_cast<int64_t>(chunks.size()), flops, [&](int64_t task) {
    const Range range = Linear::tokens_of(chunks[static_cast<size_t>(task)], tokens);
    const StageBuffers<T> own = buffers(range.size());
    for (const Stage<T>& stage : stages) {
      if (stage.panels.size() > 0) stage.run(range, stage.panels, own);
    }
  });
}

// The stage that prepares what a linear layer reads, empty where its weights read tokens as they are. operand(range of
// tokens, buffers) is what it reads.
template <typename T, typename F>
Stage<T> prepare_stage(const Linear& linear, int64_t tokens, const F& operand) {
  return {linear.tiles_to_prepare(tokens), linear.prepared_bytes() == 0 ? 0 : 20 * tokens * linear.inputs(),
          [&](Range t, Range tiles, StageBuffers<T> between) { linear.prepare(operand(t, between), t.size(), tiles); }};
}

// out = activation(x weight^T + bias) for all outputs. x: (tokens, inputs); out: (tokens, outputs)
template <typename T>
void parallel_apply(const Linear& linear, const T* x, int64_t ld_x, int64_t tokens, Activation activation, T* out,
                    int64_t ld_out) {
  const auto operand = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{x + t.first * ld_x, ld_x, between.prepared};
  };
  run_stages<T>(tokens, {.prepared = linear.prepared_bytes()},
                {prepare_stage<T>(linear, tokens, operand),
                 {linear.panels(), linear.flops(tokens), [&](Range t, Range panels, StageBuffers<T> between) {
                    linear.apply(operand(t, between), t.size(), panels, activation, out + t.first * ld_out, ld_out);
                  }}});
}

}  // namespace moco
