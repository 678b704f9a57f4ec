// Which tokens of a row go on, where not all do.
#pragma once

#include <cstdint>
#include <vector>

namespace moco {

// How many tokens go on: a share of those that the row began with, rounded up, and no more than it has.
int64_t tokens_to_keep(int64_t began_with, double share, int64_t tokens);

// The places of `count` tokens in their order: `pooled`, and those with the largest scores, of equal ones the first.
// A score that is no number is as low as any. scores: (tokens)
std::vector<int32_t> best_tokens(const float* scores, int64_t tokens, int64_t count, int64_t pooled);

}  // namespace moco
