// A BERT-like encoder with its classifier, over packed rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gemm.h"
#include "layer.h"
#include "packed_batch.h"
#include "weights.h"

namespace moco {

class Encoder {
 public:
  // dtype: float32 or bfloat16, of the hidden states and of what is multiplied; sums, softmax and LayerNorm are
  // float32.
  Encoder(EmbeddingWeights embeddings, const std::vector<LayerWeights>& layers, const HeadWeights& head, int64_t heads,
          const std::string& activation, double eps, at::ScalarType dtype);

  int64_t num_layers() const { return std::ssize(layers_); }
  int64_t num_classes() const { return output_.outputs(); }
  at::ScalarType dtype() const { return dtype_; }

  // Hidden states of the batch from input_ids and token_type_ids: (rows, S) integer.
  void embed(PackedBatch& batch, const at::Tensor& input_ids, const std::optional<at::Tensor>& token_type_ids) const;
  // The sub-layers of one layer, in place.
  void attention(int64_t layer, PackedBatch& batch) const;
  void feed_forward(int64_t layer, PackedBatch& batch) const;
  // What `attention` would leave in every row's first token, as a batch of these tokens; `batch` stays as it is.
  PackedBatch peek(int64_t layer, const PackedBatch& batch) const;
  // (rows, C) in the encoder's dtype, from every row's first token.
  at::Tensor classify(const PackedBatch& batch) const;

 private:
  const Layer& layer(int64_t i) const;
  void check(const PackedBatch& batch) const;
  template <typename F>
  void with_dtype(const F& f) const;

  at::ScalarType dtype_;
  int64_t D_;
  EmbeddingWeights embeddings_;
  LayerNorm embedding_norm_;
  std::unique_ptr<Linear> projection_;
  std::vector<std::unique_ptr<Layer>> layers_;
  Activation head_activation_;
  Linear dense_, output_;
};

}  // namespace moco
