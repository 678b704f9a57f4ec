#include "transformer/patch_embeddings.h"

#include <algorithm>

#include "core/checks.h"
#include "core/isa.h"
#include "core/profile.h"
#include "linear/stages.h"
#include "tensor/convert.h"

namespace moco {

namespace {

// The weights, if they fit each other and hidden states of size D.
PatchEmbeddingSpec checked(PatchEmbeddingSpec spec, int64_t D) {
  const std::vector<int64_t>& image = spec.image_size;
  const std::vector<int64_t>& patch = spec.patch_size;
  const auto positive = [](int64_t size) { return size > 0; };
  MOCO_CHECK_VALUE(image.size() == 3 && patch.size() == 2 && std::all_of(image.begin(), image.end(), positive) &&
                       std::all_of(patch.begin(), patch.end(), positive) && patch[0] <= image[1] &&
                       patch[1] <= image[2],
                   "TransformerClassifier: patches must fit an image of (channels, height, width) (got patches of ",
                   patch, " and ", image, ")");
  check_affine(spec.projection, {D, image[0] * patch[0] * patch[1]});
  const Tensor& first_tokens = spec.first_tokens;
  MOCO_CHECK_VALUE(first_tokens.dim() == 2, "TransformerClassifier: first_tokens must have shape (any, ", D, ") (got ",
                   first_tokens.sizes(), ")");
  MOCO_CHECK_SHAPE("TransformerClassifier", first_tokens, {first_tokens.size(0), D});
  const int64_t patches = (image[1] / patch[0]) * (image[2] / patch[1]);
  const Tensor& positions = spec.positions;
  MOCO_CHECK_SHAPE("TransformerClassifier", positions, {first_tokens.size(0) + patches, D});
  return spec;
}

// The projection, with an even number of inputs, as products of bfloat16 need it.
LinearWeights with_even_inputs(const Affine& projection) {
  const auto& [weight, bias] = projection;
  const Tensor even = Tensor::zeros({weight.size(0), round_up(weight.size(1), 2)}, weight.dtype());
  copy(weight, even.narrow(1, 0, weight.size(1)));
  return {even, bias};
}

}  // namespace

PatchEmbeddings::PatchEmbeddings(PatchEmbeddingSpec spec, int64_t D, DType dtype)
    : spec_(checked(std::move(spec), D)), projection_(with_even_inputs(spec_.projection), dtype) {
  spec_.projection = {};  // the linear layer has its own
  spec_.positions = spec_.positions.to(dtype).clone();
  spec_.first_tokens = spec_.first_tokens.to(dtype).clone();
  with_type(dtype, [&]<typename T>(T) {
    T* tokens = spec_.first_tokens.data<T>();
    const T* positions = spec_.positions.data<T>();
    for (int64_t i = 0; i < spec_.first_tokens.numel(); ++i) {
      tokens[i] = convert<T>(convert<float>(tokens[i]) + convert<float>(positions[i]));
    }
  });
}

// Every image takes the same way whatever is beside it: its patches are tokens of products in fixed tiles.
template <typename T>
void PatchEmbeddings::run(const T* pixels, int64_t rows, T* hidden) const {
  const int64_t K = projection_.inputs();
  const int64_t D = projection_.outputs();
  const int64_t image_pixels = spec_.image_size[0] * spec_.image_size[1] * spec_.image_size[2];
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(spec_.first_tokens.data<T>(), spec_.first_tokens.numel(), hidden + row * tokens() * D);
  }
  const int64_t all = rows * patches();
  run_stages<T>(all, {.normalized = K, .product = D},
                {{Linear::tiles(all), 20 * all * K,
                  [&](Range t, Range tiles, StageBuffers<T> between) {
                    const Timed timed(ProfileSection::kEmbed);
                    const Range own = Linear::tokens_of(tiles, t.size());
                    for (int64_t i = own.first; i < own.last; ++i) {
                      const int64_t patch = t.first + i;
                      unfold(pixels + patch / patches() * image_pixels, patch % patches(), between.normalized + i * K);
                    }
                  }},
                 {projection_.panels(), projection_.flops(all),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    const Operand<T> operand{between.normalized, K, between.prepared};
                    projection_.multiply(operand, t.size(), panels, between.product, D);
                  }},
                 {Linear::tiles(all), 20 * all * D, [&](Range t, Range tiles, StageBuffers<T> between) {
                    const Timed timed(ProfileSection::kEmbed);
                    const Range own = Linear::tokens_of(tiles, t.size());
                    add_positions(between.product + own.first * D, t.first + own.first, own.size(), hidden);
                  }}});
}

// A patch's pixels as the projection reads them: channel by channel, line by line. out: (inputs)
template <typename T>
void PatchEmbeddings::unfold(const T* image, int64_t patch, T* out) const {
  const int64_t height = spec_.image_size[1];
  const int64_t width = spec_.image_size[2];
  const int64_t lines = spec_.patch_size[0];
  const int64_t columns = spec_.patch_size[1];
  const int64_t across = width / columns;
  const T* corner = image + patch / across * lines * width + patch % across * columns;
  T* end = out;
  for (int64_t channel = 0; channel < spec_.image_size[0]; ++channel) {
    for (int64_t line = 0; line < lines; ++line) {
      end = std::copy_n(corner + (channel * height + line) * width, columns, end);
    }
  }
  std::fill(end, out + projection_.inputs(), T{});
}

// Projected patches, which may be of several images, to where they stand. product: (count, D), written over
template <typename T>
void PatchEmbeddings::add_positions(float* product, int64_t first_patch, int64_t count, T* hidden) const {
  const int64_t D = projection_.outputs();
  const int64_t before = spec_.first_tokens.size(0);
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first_patch + done) / patches();
    const int64_t patch = (first_patch + done) % patches();
    const int64_t some = std::min(patches() - patch, count - done);
    const int64_t token = before + patch;
    hidden_kernels<T>().add_residual(product + done * D, projection_.bias(), spec_.positions.data<T>() + token * D,
                                     nullptr, some, D, hidden + (row * tokens() + token) * D);
    done += some;
  }
}

template void PatchEmbeddings::run(const float*, int64_t, float*) const;
template void PatchEmbeddings::run(const bfloat16*, int64_t, bfloat16*) const;

}  // namespace moco
