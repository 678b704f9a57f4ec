// What a layer adds to the scores of its queries and keys, laid out for its heads. Each kind has
//   check(tokens)      refuses a row that is longer than its tables
//   of_head(head)      what one head needs: OfHead, whose kProducts says of how many products a score is the sum, and
//                      whose add(tile) adds to some scores
#pragma once

#include <algorithm>
#include <cstdint>
#include <variant>

#include "core/isa.h"
#include "core/parallel.h"
#include "core/scratch.h"
#include "linear/products.h"
#include "tensor/tensor.h"
#include "transformer/spec.h"

namespace moco {

// The scores of some queries and keys of one row and head, before they are scaled.
template <typename T>
struct ScoreTile {
  Range queries, keys;  // their places in the row; both begin at a multiple of kKeyStep
  const T* query;       // the first of these queries
  const T* key;         // the row's first key
  int64_t ld;           // from one token to the next
  int64_t d;
  float* scores;  // of the first of these queries and the row's first key
  int64_t ld_scores;
};

class NoBias {
 public:
  struct OfHead {
    static constexpr int64_t kProducts = 1;
    template <typename T>
    void add(const ScoreTile<T>& /*tile*/) const {}
  };
  void check(int64_t /*tokens*/) const {}
  OfHead of_head(int64_t /*head*/) const { return {}; }
};

// One number for each head and distance.
class DistanceTable {
 public:
  struct OfHead {
    static constexpr int64_t kProducts = 1;
    // From one query to the next all keys are one place nearer to the beginning of the table.
    template <typename T>
    void add(const ScoreTile<T>& tile) const {
      kernels().add_to_scores(same_place + tile.keys.first - tile.queries.first, -1, tile.queries.size(),
                              tile.keys.size(), tile.scores + tile.keys.first, tile.ld_scores);
    }
    const float* same_place;  // what is added where a query meets the key of its own token
  };

  DistanceTable(const DistanceBias& spec, int64_t heads, int64_t d);
  void check(int64_t tokens) const;
  OfHead of_head(int64_t head) const {
    const int64_t positions = (values_.size(1) + 1) / 2;
    return {values_.data<float>() + head * values_.size(1) + positions - 1};
  }

 private:
  Tensor values_;  // (heads, 2 * positions - 1), times sqrt(d): scores are scaled with it
};

// The vectors of all distances of one head, as the right operand of a product: of distances in order, those of a tile
// are neighbours, and a product with them needs no look-up by distance.
struct DistanceVectors {
  const char* words;
  int64_t words_of_one;  // of one vector
  int64_t nearest;       // where distance 0 stands

  // c = a b, b: `count` vectors from a distance on.
  template <typename T>
  void multiply(int64_t tokens, int64_t d, const T* a, int64_t ld_a, int64_t distance, int64_t count, float* c,
                int64_t ld_c) const {
    const int64_t block = words_of_one * kBlock;
    const char* first = words + (nearest + distance) / kBlock * block * kWordBytes;
    moco::multiply(tokens, count, d, a, ld_a, {first, kBlock, block}, c, ld_c, false);
  }
};

// Tables of DisentangledBias: of keys, which queries are multiplied with, of queries, or of both.
template <bool keys, bool queries>
class DisentangledTables {
 public:
  // A strip of queries, or of keys, meets one distance more with every token of the strip: the products of the next
  // token are those of the one before, moved by one. So they are added as a matrix with rows that are one nearer.
  struct OfHead {
    static constexpr int64_t kProducts = 1 + keys + queries;
    template <typename T>
    void add(const ScoreTile<T>& tile) const {
      static thread_local Scratch scratch;
      const int64_t ld = tile.ld_scores;  // there is room for kKeyStep more than all keys
      float* products = scratch.of<float>(kKeyStep * ld);
      const auto for_strips = [](Range tokens, const auto& f) {
        for (int64_t t = tokens.first; t < tokens.last; t += kKeyStep) f(t, std::min(kKeyStep, tokens.last - t));
      };
      const auto distances = [](Range others) { return round_up(others.size() + kKeyStep - 1, kKeyStep); };
      if constexpr (keys) {
        for_strips(tile.queries, [&](int64_t q, int64_t size) {
          const int64_t place = q - tile.queries.first;
          of_keys.multiply(size, tile.d, tile.query + place * tile.ld, tile.ld, tile.keys.first - q - (kKeyStep - 1),
                           distances(tile.keys), products, ld);
          kernels().add_to_scores(products + kKeyStep - 1, ld - 1, size, tile.keys.size(),
                                  tile.scores + place * tile.ld_scores + tile.keys.first, tile.ld_scores);
        });
      }
      if constexpr (queries) {
        for_strips(tile.keys, [&](int64_t k, int64_t size) {
          of_queries.multiply(size, tile.d, tile.key + k * tile.ld, tile.ld, tile.queries.first - k - (kKeyStep - 1),
                              distances(tile.queries), products, ld);
          kernels().add_transposed_to_scores(products + kKeyStep - 1, ld - 1, tile.queries.size(), size,
                                             tile.scores + k, tile.ld_scores);
        });
      }
    }
    DistanceVectors of_keys, of_queries;  // by key - query, by query - key
  };

  DisentangledTables(const DisentangledBias& spec, int64_t heads, DType dtype);
  void check(int64_t tokens) const;
  OfHead of_head(int64_t head) const { return {vectors(keys_, head), vectors(queries_, head)}; }

 private:
  DistanceVectors vectors(const Tensor& table, int64_t head) const;

  int64_t positions_;
  Tensor keys_, queries_;  // (heads, 2 * positions rounded up / kBlock, words of d, kBlock, inputs in a word)
};

using PackedBias = std::variant<NoBias, DistanceTable, DisentangledTables<true, false>, DisentangledTables<false, true>,
                                DisentangledTables<true, true>>;

// The bias of a layer whose heads are of size d, if it fits them.
PackedBias packed(const ScoreBias& spec, int64_t heads, int64_t d, DType dtype);

}  // namespace moco
