#include "encoder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "checks.h"
#include "isa.h"
#include "profile.h"
#include "stages.h"

namespace moco {

namespace {

Activation activation_from_name(const std::string& name) {
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "tanh") return Activation::kTanh;
  MOCO_CHECK_VALUE(false, "activation must be one of gelu, gelu_new, relu, tanh (got ", name, ")");
}

// What a token looks up in the tables.
struct TokenIds {
  std::vector<int64_t> word, position, type;
};

void check_ids(const char* name, const std::vector<int64_t>& ids, int64_t size) {
  if (ids.empty()) return;
  const auto [least, most] = std::minmax_element(ids.begin(), ids.end());
  MOCO_CHECK_INDEX(*least >= 0 && *most < size, name, " must be from 0 to ", size - 1, " (got ",
                   *least < 0 ? *least : *most, ")");
}

TokenIds token_ids(const PackedBatch& batch, const EmbeddingWeights& weights, const at::Tensor& words,
                   const std::optional<at::Tensor>& types) {
  TokenIds ids;
  const int64_t S = words.size(1);
  const int64_t* word = words.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    const int64_t tokens = batch.cu_seqlens()[r + 1] - batch.cu_seqlens()[r];
    const auto copy = [&](const int64_t* from, std::vector<int64_t>& to) {
      to.insert(to.end(), from + row * S, from + row * S + tokens);
    };
    copy(word, ids.word);
    if (types) copy(types->const_data_ptr<int64_t>(), ids.type);
    int64_t position = weights.padding_idx.value_or(-1);
    for (int64_t t = 0; t < tokens; ++t) {
      const bool counts = word[row * S + t] != weights.padding_idx;
      if (counts) ++position;
      ids.position.push_back(counts ? position : *weights.padding_idx);
    }
  }
  if (!types) ids.type.assign(ids.word.size(), 0);
  check_ids("input_ids", ids.word, weights.words.size(0));
  check_ids("position", ids.position, weights.positions.size(0));
  if (weights.types) check_ids("token_type_ids", ids.type, weights.types->size(0));
  return ids;
}

template <typename T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
void embed(const EmbeddingWeights& weights, const LayerNorm& norm, const TokenIds& ids, T* out) {
  const auto tokens = static_cast<int64_t>(ids.word.size());
  const int64_t E = weights.words.size(1);
  parallel_tasks((tokens + Linear::kTile - 1) / Linear::kTile, 20 * tokens * E, [&](int64_t task) {
    const Timed timed(Part::kEmbed);
    static thread_local Scratch scratch;
    const int64_t t = task * Linear::kTile;
    hidden_kernels<T>().embed(data<T>(weights.words), data<T>(weights.positions),
                              weights.types ? data<T>(*weights.types) : nullptr, &ids.word[static_cast<size_t>(t)],
                              &ids.position[static_cast<size_t>(t)], &ids.type[static_cast<size_t>(t)], norm.get(),
                              std::min(Linear::kTile, tokens - t), E, scratch.of<float>(E), out + t * E);
  });
}

}  // namespace

Encoder::Encoder(EmbeddingWeights embeddings, const std::vector<LayerWeights>& layers, const HeadWeights& head,
                 int64_t heads, const std::string& activation, double eps, at::ScalarType dtype)
    : dtype_(dtype),
      D_(head.dense.first.size(1)),
      embeddings_(std::move(embeddings)),
      embedding_norm_(embeddings_.norm, eps),
      head_activation_(activation_from_name(head.activation)),
      dense_({head.dense.first, head.dense.second}, dtype, Linear::kFineDepth),
      output_({head.output.first, head.output.second}, dtype, Linear::kFineDepth) {
  MOCO_CHECK_VALUE(can_multiply(dtype),
                   "Encoder: dtype must be torch.float32, or torch.bfloat16 where the processor multiplies it (got ",
                   name_of(dtype), ")");
  MOCO_CHECK_VALUE(heads > 0 && D_ % heads == 0, "Encoder: heads must divide the hidden size ", D_, " (got ", heads,
                   ")");
  MOCO_CHECK_VALUE(dtype == at::kFloat || D_ / heads % 2 == 0, "Encoder: the size of a head must be even in ",
                   name_of(dtype), " (got ", D_ / heads, ")");
  const at::Tensor& words = embeddings_.words;
  MOCO_CHECK_VALUE(words.dim() == 2, "Encoder: words must have shape (any, size) (got ", words.sizes(), ")");
  const int64_t E = words.size(1);
  const at::Tensor& positions = embeddings_.positions;
  MOCO_CHECK_SHAPE("Encoder", positions, {positions.size(0), E});
  if (embeddings_.types) {
    const at::Tensor& types = *embeddings_.types;
    MOCO_CHECK_SHAPE("Encoder", types, {types.size(0), E});
  }
  check_affine(embeddings_.norm, {E});
  MOCO_CHECK_VALUE(embeddings_.projection || E == D_, "Encoder: words must have size ", D_,
                   " where nothing projects them (got ", E, ")");
  if (embeddings_.projection) check_affine(*embeddings_.projection, {D_, E});
  // In the encoder's own dtype these are the model's own tables, not copies.
  const auto table = [&](const at::Tensor& weight) { return weight.detach().to(dtype).contiguous(); };
  embeddings_.words = table(embeddings_.words);
  embeddings_.positions = table(embeddings_.positions);
  if (embeddings_.types) embeddings_.types = table(*embeddings_.types);
  if (embeddings_.projection) {
    projection_ =
        std::make_unique<Linear>(LinearWeights{embeddings_.projection->first, embeddings_.projection->second}, dtype);
  }
  for (const LayerWeights& weights : layers) {
    layers_.push_back(std::make_unique<Layer>(weights, heads, activation_from_name(activation), eps, dtype));
  }
}

const Layer& Encoder::layer(int64_t i) const {
  MOCO_CHECK_INDEX(i >= 0 && i < std::ssize(layers_), "layer must be from 0 to ", std::ssize(layers_) - 1, " (got ", i,
                   ")");
  return *layers_[static_cast<size_t>(i)];
}

void Encoder::check(const PackedBatch& batch) const {
  const at::Tensor hidden = batch.hidden();
  MOCO_CHECK_SHAPE("Encoder", hidden, {batch.total_tokens(), D_});
  MOCO_CHECK_DTYPE("Encoder", hidden, dtype_);
  MOCO_CHECK_DEVICE("Encoder", hidden, at::kCPU);
}

// f(T{}) for the type of the hidden states.
template <typename F>
void Encoder::with_dtype(const F& f) const {
  dtype_ == at::kFloat ? f(float{}) : f(bfloat16{});
}

void Encoder::embed(PackedBatch& batch, const at::Tensor& input_ids,
                    const std::optional<at::Tensor>& token_type_ids) const {
  const Timed timed(Part::kExtension);
  MOCO_CHECK_VALUE(input_ids.dim() == 2 && input_ids.size(0) == batch.rows() && input_ids.size(1) >= batch.max_seqlen(),
                   "embed: input_ids must have shape (", batch.rows(), ", at least ", batch.max_seqlen(), ") (got ",
                   input_ids.sizes(), ")");
  const auto host = [&](const at::Tensor& ids) { return ids.to(at::kCPU, at::kLong).contiguous(); };
  std::optional<at::Tensor> types;
  if (token_type_ids && embeddings_.types) {
    MOCO_CHECK_SHAPE("embed", *token_type_ids, {input_ids.size(0), input_ids.size(1)});
    types = host(*token_type_ids);
  }
  const TokenIds ids = token_ids(batch, embeddings_, host(input_ids), types);
  const at::TensorOptions options = at::TensorOptions().dtype(dtype_);
  const at::Tensor hidden = batch.allocate(D_, options);
  with_dtype([&]<typename T>(T) {
    if (!projection_) return moco::embed(embeddings_, embedding_norm_, ids, data<T>(hidden));
    const int64_t E = projection_->inputs();
    const at::Tensor narrow = at::empty({batch.total_tokens(), E}, options);
    moco::embed(embeddings_, embedding_norm_, ids, data<T>(narrow));
    parallel_apply(*projection_, data<T>(narrow), E, batch.total_tokens(), Activation::kNone, data<T>(hidden), D_);
  });
}

void Encoder::attention(int64_t i, PackedBatch& batch) const {
  const Timed timed(Part::kExtension);
  check(batch);
  with_dtype([&]<typename T>(T) { layer(i).attention(data<T>(batch.hidden()), batch.cu_seqlens()); });
}

void Encoder::feed_forward(int64_t i, PackedBatch& batch) const {
  const Timed timed(Part::kExtension);
  check(batch);
  with_dtype([&]<typename T>(T) { layer(i).feed_forward(data<T>(batch.hidden()), batch.total_tokens()); });
}

PackedBatch Encoder::peek(int64_t i, const PackedBatch& batch) const {
  const Timed timed(Part::kExtension);
  check(batch);
  PackedBatch cls = batch.cls();
  with_dtype(
      [&]<typename T>(T) { layer(i).peek<T>(data<T>(batch.hidden()), batch.cu_seqlens(), data<T>(cls.hidden())); });
  return cls;
}

at::Tensor Encoder::classify(const PackedBatch& batch) const {
  const Timed timed(Part::kExtension);
  check(batch);
  const at::Tensor cls = batch.cls().hidden();
  const int64_t rows = batch.rows();
  const at::Tensor pooled = at::empty({rows, dense_.outputs()}, cls.options());
  const at::Tensor logits = at::empty({rows, output_.outputs()}, cls.options());
  with_dtype([&]<typename T>(T) {
    parallel_apply(dense_, data<T>(cls), D_, rows, head_activation_, data<T>(pooled), pooled.size(1));
    parallel_apply(output_, data<T>(pooled), pooled.size(1), rows, Activation::kNone, data<T>(logits), logits.size(1));
  });
  return logits;
}

}  // namespace moco
