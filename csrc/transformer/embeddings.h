// Token ids to the hidden states that the first layer reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch/packed_batch.h"
#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/spec.h"

namespace moco {

class Embeddings {
 public:
  // D: the size of the hidden states.
  Embeddings(EmbeddingSpec spec, int64_t D, at::ScalarType dtype);

  bool has_types() const { return spec_.types.has_value(); }

  // The rows that a batch's tokens look up in the tables. word, position and type: by token.
  struct Ids {
    std::vector<int64_t> word, position, type;
  };
  // words, types: (rows, S) or, end to end, (T), int64 on the CPU; refuses ids that the tables do not have.
  Ids look_up(const PackedBatch& batch, const at::Tensor& words, const std::optional<at::Tensor>& types) const;

  // hidden = norm(words + types + positions), norm and projection where there are. hidden: (tokens, D)
  template <typename T>
  void run(const Ids& ids, T* hidden) const;

 private:
  template <typename T>
  void sum_and_normalize(const Ids& ids, T* out) const;

  EmbeddingSpec spec_;
  std::optional<NormLayer> norm_;
  at::ScalarType dtype_;
  std::unique_ptr<Linear> projection_;
};

}  // namespace moco
