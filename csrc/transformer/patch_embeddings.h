// Pixels to the hidden states that the first layer reads: a linear layer over the patches of an image.
#pragma once

#include <cstdint>
#include <vector>

#include "linear/linear.h"
#include "tensor/tensor.h"
#include "transformer/spec.h"

namespace moco {

class PatchEmbeddings {
 public:
  // D: the size of the hidden states.
  PatchEmbeddings(PatchEmbeddingSpec spec, int64_t D, DType dtype);

  const std::vector<int64_t>& image_size() const { return spec_.image_size; }  // channels, height, width
  int64_t tokens() const { return spec_.positions.size(0); }                   // of an image

  // hidden = first tokens and projected patches of each image, with their positions.
  //   pixels: (rows, channels, height, width), hidden: (rows * tokens, D)
  template <typename T>
  void run(const T* pixels, int64_t rows, T* hidden) const;

 private:
  int64_t patches() const { return tokens() - spec_.first_tokens.size(0); }
  template <typename T>
  void unfold(const T* image, int64_t patch, T* out) const;
  template <typename T>
  void add_positions(float* product, int64_t first_patch, int64_t count, T* hidden) const;

  PatchEmbeddingSpec spec_;  // first_tokens with their positions, and positions, in the dtype of hidden states
  Linear projection_;
};

}  // namespace moco
