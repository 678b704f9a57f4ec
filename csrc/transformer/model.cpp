#include "transformer/model.h"

#include "core/checks.h"
#include "core/profile.h"
#include "linear/products.h"

namespace moco {

namespace {

// The dtype, if hidden states can have it here.
DType checked(DType dtype) {
  MOCO_CHECK_VALUE(
      can_multiply(dtype) && is_floating(dtype),
      "TransformerClassifier: dtype must be torch.float32, or torch.bfloat16 where the processor multiplies it (got ",
      name_of(dtype), ")");
  return dtype;
}

// Of the hidden states.
int64_t size_of(const EmbeddingSpec& spec) {
  return spec.projection ? spec.projection->first.size(0) : spec.words.size(1);
}

int64_t size_of(const PatchEmbeddingSpec& spec) { return spec.projection.first.size(0); }

}  // namespace

TransformerClassifier::TransformerClassifier(const std::variant<EmbeddingSpec, PatchEmbeddingSpec>& embeddings,
                                             const std::vector<LayerSpec>& layers, const HeadSpec& head, DType dtype,
                                             const std::optional<std::vector<int64_t>>& order)
    : dtype_(checked(dtype)),
      D_(std::visit([](const auto& spec) { return size_of(spec); }, embeddings)),
      head_(head, D_, dtype) {
  if (const auto* patches = std::get_if<PatchEmbeddingSpec>(&embeddings)) {
    patches_.emplace(*patches, D_, dtype);
  } else {
    embeddings_.emplace(std::get<EmbeddingSpec>(embeddings), D_, dtype);
  }
  bool shortens = false;  // tokens have been left out
  for (const LayerSpec& spec : layers) {
    check_linear(spec.attention.query, spec.attention.query.outputs(), D_);
    check_linear(spec.feed_forward.down, D_, spec.feed_forward.down.inputs());
    MOCO_CHECK_VALUE(!shortens || (!spec.attention.rope && std::holds_alternative<std::monostate>(spec.attention.bias)),
                     "TransformerClassifier: keep must be 1 before layers whose attention knows distances");
    shortens = shortens || spec.attention.keep < 1;
    layers_.push_back(std::make_shared<const Layer>(spec, dtype));
  }
  if (!order) return;
  const std::vector<std::shared_ptr<const Layer>> given = std::move(layers_);
  layers_.clear();
  for (const int64_t i : *order) {
    MOCO_CHECK_VALUE(i >= 0 && i < std::ssize(given), "TransformerClassifier: order must name layers from 0 to ",
                     std::ssize(given) - 1, " (got ", i, ")");
    layers_.push_back(given[static_cast<size_t>(i)]);
  }
}

const Layer& TransformerClassifier::layer(int64_t i) const {
  MOCO_CHECK_INDEX(i >= 0 && i < std::ssize(layers_), "layer must be from 0 to ", std::ssize(layers_) - 1, " (got ", i,
                   ")");
  return *layers_[static_cast<size_t>(i)];
}

void TransformerClassifier::check(const PackedBatch& batch) const {
  const Tensor hidden = batch.hidden();
  MOCO_CHECK_SHAPE("Encoder", hidden, {batch.total_tokens(), D_});
  MOCO_CHECK_DTYPE("Encoder", hidden, dtype_);
}

// f(T{}) for the type of the hidden states.
template <typename F>
void TransformerClassifier::with_dtype(const F& f) const {
  dtype_ == DType::kFloat32 ? f(float{}) : f(bfloat16{});
}

const Embeddings& TransformerClassifier::embeddings() const {
  MOCO_CHECK_VALUE(embeddings_, "embed: the model must take texts (got one that takes images)");
  return *embeddings_;
}

std::array<double, 4> TransformerClassifier::densities(int64_t layer) const {
  const SelfAttention& attention = this->layer(layer).attention();
  const FeedForward& feed_forward = this->layer(layer).feed_forward();
  return {attention.input_density(), attention.output().density(), feed_forward.up().density(),
          feed_forward.down().density()};
}

void TransformerClassifier::check_ids(const PackedBatch& batch) const { embeddings().check(batch.ids()); }

void TransformerClassifier::embed(PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  const Embeddings& tables = embeddings();
  const Embeddings::Ids ids = tables.look_up(batch.cu_seqlens(), batch.ids());
  batch.release_ids();  // a batch that is refused keeps them
  const Tensor hidden = batch.allocate(D_, dtype_);
  with_dtype([&]<typename T>(T) { tables.run(ids, hidden.data<T>()); });
}

void TransformerClassifier::embed_images(PackedBatch& batch, const Tensor& pixel_values) const {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_VALUE(patches_, "embed_images: the model must take images (got one that takes texts)");
  const std::vector<int64_t>& image = patches_->image_size();
  MOCO_CHECK_SHAPE("embed_images", pixel_values, {batch.rows(), image[0], image[1], image[2]});
  MOCO_CHECK_FLOATING("embed_images: pixel_values", pixel_values.dtype());
  const int64_t tokens = patches_->tokens();
  MOCO_CHECK_VALUE(batch.max_seqlen() == tokens && batch.total_tokens() == batch.rows() * tokens,
                   "embed_images: every row must have ", tokens, " tokens");
  const Tensor pixels = pixel_values.to(dtype_);
  const Tensor hidden = batch.allocate(D_, dtype_);
  with_dtype([&]<typename T>(T) { patches_->run(pixels.data<T>(), batch.rows(), hidden.data<T>()); });
}

void TransformerClassifier::attention(int64_t i, PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  check(batch);
  const SelfAttention& attention = layer(i).attention();
  std::vector<float> received(attention.keep() < 1 ? static_cast<size_t>(batch.total_tokens()) : 0);
  with_dtype([&]<typename T>(T) {
    attention.run(batch.hidden().data<T>(), batch.cu_seqlens(), received.empty() ? nullptr : received.data());
  });
  if (!received.empty()) batch.keep_tokens(received.data(), attention.keep());
}

void TransformerClassifier::feed_forward(int64_t i, PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  check(batch);
  with_dtype([&]<typename T>(T) { layer(i).feed_forward().run(batch.hidden().data<T>(), batch.total_tokens()); });
}

PackedBatch TransformerClassifier::peek(int64_t i, const PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  check(batch);
  const Layer& layer = this->layer(i);
  const bool folds = layer.peek() != nullptr && batch.pooled() == PooledToken::kFirst;
  PackedBatch cls = batch.cls();
  with_dtype([&]<typename T>(T) {
    const T* hidden = batch.hidden().data<T>();
    if (folds) return layer.peek()->run(hidden, batch.cu_seqlens(), cls.hidden().data<T>());
    layer.attention().run_pooled(hidden, batch.cu_seqlens(), batch.pooled(), cls.hidden().data<T>());
  });
  return cls;
}

void TransformerClassifier::finish(PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  check(batch);
  with_dtype([&]<typename T>(T) { head_.normalize<T>(batch.hidden()); });
}

Tensor TransformerClassifier::classify(const PackedBatch& batch) const {
  const Timed timed(ProfileSection::kExtension);
  check(batch);
  MOCO_CHECK_VALUE(num_classes() > 0, "classify: the head must have an output (got none)");
  Tensor logits;
  with_dtype([&]<typename T>(T) { logits = head_.run<T>(batch); });
  return logits;
}

}  // namespace moco
