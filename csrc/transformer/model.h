// A transformer with its classifier, over packed rows: start reading here.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "batch/packed_batch.h"
#include "tensor/tensor.h"
#include "transformer/embeddings.h"
#include "transformer/head.h"
#include "transformer/layer.h"
#include "transformer/patch_embeddings.h"
#include "transformer/spec.h"

namespace moco {

class TransformerClassifier {
 public:
  // dtype: float32 or bfloat16, of hidden states and of products whose weights are not int8; sums, softmax and
  // norms are float32.
  // order: which of the layers is run at each place; absent: each once. Layers that are run several times (ALBERT) are
  // packed once.
  TransformerClassifier(const std::variant<EmbeddingSpec, PatchEmbeddingSpec>& embeddings,
                        const std::vector<LayerSpec>& layers, const HeadSpec& head, DType dtype,
                        const std::optional<std::vector<int64_t>>& order = std::nullopt);

  int64_t num_layers() const { return std::ssize(layers_); }
  int64_t num_classes() const { return head_.classes(); }
  DType dtype() const { return dtype_; }
  // Whether `peek` needs no keys and values in this layer: it then takes next to no time.
  bool folds_keys(int64_t layer) const { return this->layer(layer).peek() != nullptr; }
  // The shares of the weights that are multiplied in a layer's products: of queries, keys and values, 1 before the
  // layer was first run for all tokens; of attention's output, and of the two of the feed-forward network.
  std::array<double, 4> densities(int64_t layer) const;
  // Whether `classify` reads no token but the pooled one.
  bool reads_one_token() const { return head_.pooling() == Pooling::kToken; }

  // Refuses a batch with ids that the tables do not have, as `embed` does: for rows that may leave before.
  void check_ids(const PackedBatch& batch) const;
  // Hidden states of the batch from the ids that it holds, which it then holds no more.
  void embed(PackedBatch& batch) const;
  // The same from pixel_values (rows, channels, height, width), where the model takes images. Every row has all patches
  // of its image and the tokens before them.
  void embed_images(PackedBatch& batch, const Tensor& pixel_values) const;
  // The sub-layers of one layer, in place.
  void attention(int64_t layer, PackedBatch& batch) const;
  void feed_forward(int64_t layer, PackedBatch& batch) const;
  // A batch of the pooled tokens, in the state that `attention` would leave them in; `batch` stays as it is.
  PackedBatch peek(int64_t layer, const PackedBatch& batch) const;
  // The norm behind the last layer, of all tokens, in place; `classify` does without.
  void finish(PackedBatch& batch) const;
  // (rows, C) in the model's dtype; where `reads_one_token`, the batch may have no other.
  Tensor classify(const PackedBatch& batch) const;

 private:
  const Embeddings& embeddings() const;
  const Layer& layer(int64_t i) const;
  void check(const PackedBatch& batch) const;
  template <typename F>
  void with_dtype(const F& f) const;

  DType dtype_;
  int64_t D_;
  Head head_;
  std::optional<Embeddings> embeddings_;              // of texts
  std::optional<PatchEmbeddings> patches_;            // of images
  std::vector<std::shared_ptr<const Layer>> layers_;  // in the order they are run
};

}  // namespace moco
