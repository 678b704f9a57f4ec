// A classifier of rows by their token ids alone: it needs nothing of the model, not even the embeddings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "batch/packed_batch.h"
#include "exits/answers.h"
#include "tensor/tensor.h"

namespace moco {

// The buckets of all n-grams of rows that lie end to end: for every token that of the token by itself and, but for the
// first of a row, that of the token with the one before it. A row of n tokens has 2 n - 1 of them.
//
// An n-gram is a number of 64 bits, the token's id below and above it 0, or 1 + the id before; it is mixed as
// MurmurHash3 finishes 64 bits (Appleby, fmix64), of which the lowest bits are the bucket. buckets: a power of two.
std::vector<int64_t> ngram_buckets(const PackedBatch& batch, int64_t buckets);

// outputs = bias + sum over a row's n-grams of table[bucket] / sqrt(their number).
class BagOfTokens {
 public:
  // table: (buckets, outputs) float32, buckets a power of two up to 2^31; bias: (outputs) float32. Score, temperature
  // and levels: see Scoring.
  BagOfTokens(const Tensor& table, const Tensor& bias, const std::string& score, double temperature,
              std::vector<double> levels = {});

  int64_t outputs() const { return table_.size(1); }
  int64_t classes() const { return scoring_.classes(outputs()); }
  int64_t groups() const { return scoring_.groups(outputs()); }
  bool is_label() const { return scoring_.is_label(); }

  // Of all rows of the batch, which must hold ids. A row has the same bits whatever it is scored with, and on any
  // number of threads.
  Answers answer(const PackedBatch& batch) const;

 private:
  void add_row(const int64_t* ids, int64_t tokens, float* outputs) const;

  Tensor table_, bias_;
  Scoring scoring_;
};

}  // namespace moco
