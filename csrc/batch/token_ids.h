// The token ids of a batch's rows, end to end, until they are embedded.
#pragma once

#include <cstdint>
#include <vector>

namespace moco {

struct TokenIds {
  std::vector<int64_t> word;  // (T)
  std::vector<int64_t> type;  // (T), the segment of each token; empty: all 0
};

}  // namespace moco
