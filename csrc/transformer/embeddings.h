// Token ids to the hidden states that the first layer reads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch/token_ids.h"
#include "linear/linear.h"
#include "tensor/tensor.h"
#include "transformer/norm.h"
#include "transformer/spec.h"

namespace moco {

class Embeddings {
 public:
  // D: the size of the hidden states.
  Embeddings(EmbeddingSpec spec, int64_t D, DType dtype);

  // Refuses ids that the tables do not have.
  void check(const TokenIds& ids) const;

  // The rows that a batch's tokens look up in the tables. word, position and type: by token.
  struct Ids {
    std::vector<int64_t> word, position, type;
  };
  // cu_seqlens: (rows + 1), where each row begins; refuses ids, and rows too long, that the tables do not have.
  Ids look_up(const std::vector<int32_t>& cu_seqlens, TokenIds tokens) const;

  // hidden = norm(words + types + positions), norm and projection where there are. hidden: (tokens, D)
  template <typename T>
  void run(const Ids& ids, T* hidden) const;

 private:
  template <typename T>
  void sum_and_normalize(const Ids& ids, T* out) const;

  EmbeddingSpec spec_;
  std::optional<NormLayer> norm_;
  DType dtype_;
  std::unique_ptr<Linear> projection_;
};

}  // namespace moco
