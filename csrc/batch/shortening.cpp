#include "batch/shortening.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moco {

int64_t tokens_to_keep(int64_t began_with, double share, int64_t tokens) {
  return std::clamp<int64_t>(std::llround(std::ceil(share * static_cast<double>(began_with))), 1, tokens);
}

std::vector<int32_t> best_tokens(const float* scores, int64_t tokens, int64_t count, int64_t pooled) {
  std::vector<int32_t> places(static_cast<size_t>(tokens));
  std::iota(places.begin(), places.end(), 0);
  const auto score = [&](int32_t token) {
    return std::isnan(scores[token]) ? -std::numeric_limits<float>::infinity() : scores[token];
  };
  const auto before = [&](int32_t a, int32_t b) {
    if (a == pooled || b == pooled) return a == pooled && b != pooled;
    return score(a) != score(b) ? score(a) > score(b) : a < b;
  };
  std::nth_element(places.begin(), places.begin() + (count - 1), places.end(), before);
  places.resize(static_cast<size_t>(count));
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace moco
