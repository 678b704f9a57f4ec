// Weights without their zeros, in the lists of entries that sparse kernels read (see SparsePanel).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace moco {

// A matrix of words of 32 bits, zero where nothing is to be multiplied: (outputs, words).
struct WordMatrix {
  const uint32_t* words;
  int64_t outputs, inputs;
};

// What an entry of a list holds: `run` successive words for `outputs` outputs.
struct EntryShape {
  int64_t outputs, run;
};

class SparseSteps {
 public:
  // piece: words that are summed in one go.
  SparseSteps(const WordMatrix& weights, EntryShape shape, int64_t piece);

  // The share of all words that is multiplied; lists that were filled up count, too.
  double density() const { return density_; }
  SparsePanel panel(int64_t number) const;

 private:
  void add_group(const WordMatrix& weights, int64_t panel, const uint8_t* outputs, int64_t first, int64_t last);

  EntryShape shape_;
  int64_t pieces_;
  double density_;
  std::vector<uint16_t> inputs_;
  std::vector<uint32_t> weights_;
  std::vector<int64_t> ends_;     // (panels, pieces, groups)
  std::vector<uint8_t> outputs_;  // (panels, pieces, groups, kSparseGroup)
};

}  // namespace moco
