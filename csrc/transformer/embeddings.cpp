#include "transformer/embeddings.h"

#include <algorithm>

#include "core/checks.h"
#include "core/isa.h"
#include "core/profile.h"
#include "linear/stages.h"

namespace moco {

namespace {

void check_ids(const char* name, const std::vector<int64_t>& ids, int64_t size) {
  if (ids.empty()) return;
  const auto [least, most] = std::minmax_element(ids.begin(), ids.end());
  MOCO_CHECK_INDEX(*least >= 0 && *most < size, name, " must be from 0 to ", size - 1, " (got ",
                   *least < 0 ? *least : *most, ")");
}

// The weights, if they fit each other and hidden states of size D.
EmbeddingSpec checked(EmbeddingSpec spec, int64_t D) {
  const Tensor& words = spec.words;
  MOCO_CHECK_VALUE(words.dim() == 2 && words.size(1) > 0,
                   "TransformerClassifier: words must have shape (any, size) with a size of at least 1 (got ",
                   words.sizes(), ")");
  const int64_t E = words.size(1);
  for (const std::optional<Tensor>& given : {spec.positions, spec.types}) {
    if (!given) continue;
    const Tensor& table = *given;
    MOCO_CHECK_VALUE(table.dim() == 2 && table.size(0) > 0 && table.size(1) == E,
                     "TransformerClassifier: tables beside words must have shape (at least 1, ", E, ") (got ",
                     table.sizes(), ")");
  }
  MOCO_CHECK_VALUE(spec.projection || E == D, "TransformerClassifier: words must have size ", D,
                   " where nothing projects them (got ", E, ")");
  if (spec.projection) check_affine(*spec.projection, {D, E});
  return spec;
}

}  // namespace

Embeddings::Embeddings(EmbeddingSpec spec, int64_t D, DType dtype) : spec_(checked(std::move(spec), D)), dtype_(dtype) {
  if (spec_.norm) norm_.emplace(*spec_.norm, spec_.words.size(1));
  // In the model's own dtype these are its own tables, not copies.
  const auto table = [&](const Tensor& weight) { return weight.to(dtype); };
  spec_.words = table(spec_.words);
  if (spec_.positions) spec_.positions = table(*spec_.positions);
  if (spec_.types) spec_.types = table(*spec_.types);
  if (spec_.projection) {
    projection_ = std::make_unique<Linear>(LinearWeights{spec_.projection->first, spec_.projection->second}, dtype);
  }
}

void Embeddings::check(const TokenIds& ids) const {
  check_ids("input_ids", ids.word, spec_.words.size(0));
  if (spec_.types) check_ids("token_type_ids", ids.type, spec_.types->size(0));
}

Embeddings::Ids Embeddings::look_up(const std::vector<int32_t>& cu_seqlens, TokenIds tokens) const {
  check(tokens);
  Ids ids{std::move(tokens.word), {}, std::move(tokens.type)};
  ids.position.reserve(ids.word.size());
  for (size_t r = 0; r + 1 < cu_seqlens.size(); ++r) {
    int64_t position = spec_.padding_idx.value_or(-1);
    for (auto t = static_cast<size_t>(cu_seqlens[r]); t < static_cast<size_t>(cu_seqlens[r + 1]); ++t) {
      const bool counts = ids.word[t] != spec_.padding_idx;
      if (counts) ++position;
      ids.position.push_back(counts ? position : *spec_.padding_idx);
    }
  }
  if (!spec_.types || ids.type.empty()) ids.type.assign(ids.word.size(), 0);
  if (spec_.positions) check_ids("position", ids.position, spec_.positions->size(0));
  return ids;
}

template <typename T>
void Embeddings::sum_and_normalize(const Ids& ids, T* out) const {
  const auto tokens = static_cast<int64_t>(ids.word.size());
  const int64_t E = spec_.words.size(1);
  const auto table = [](const std::optional<Tensor>& given) { return given ? given->data<T>() : nullptr; };
  const Norm norm = norm_ ? norm_->get() : Norm{};
  const EmbeddingTables<T> tables{spec_.words.data<T>(), table(spec_.positions), table(spec_.types),
                                  static_cast<float>(spec_.scale), norm_ ? &norm : nullptr};
  parallel_tasks((tokens + Linear::kTile - 1) / Linear::kTile, 20 * tokens * E, [&](int64_t task) {
    const Timed timed(ProfileSection::kEmbed);
    static thread_local Scratch scratch;
    const int64_t t = task * Linear::kTile;
    hidden_kernels<T>().embed(tables, &ids.word[static_cast<size_t>(t)], &ids.position[static_cast<size_t>(t)],
                              &ids.type[static_cast<size_t>(t)], std::min(Linear::kTile, tokens - t), E,
                              scratch.of<float>(E), out + t * E);
  });
}

template <typename T>
void Embeddings::run(const Ids& ids, T* hidden) const {
  if (!projection_) return sum_and_normalize(ids, hidden);
  const auto tokens = static_cast<int64_t>(ids.word.size());
  const int64_t E = projection_->inputs();
  const Tensor narrow = Tensor::empty({tokens, E}, dtype_);
  sum_and_normalize(ids, narrow.data<T>());
  parallel_apply(*projection_, narrow.data<T>(), E, tokens, Activation::kNone, hidden, projection_->outputs());
}

template void Embeddings::run(const Ids&, float*) const;
template void Embeddings::run(const Ids&, bfloat16*) const;

}  // namespace moco
