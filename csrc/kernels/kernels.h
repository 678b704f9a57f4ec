// The contract of layer 0: every kernel with its shapes.
//
// Kernels know pointers and int64_t, nothing of torch: they do not allocate, throw or start threads. They are compiled
// once per instruction set (see CMakeLists.txt); isa.h hands out the table that fits the processor.
// Shapes: rows B, total_tokens T, hidden size D, heads H. Rows are packed: row r holds the tokens cu_seqlens[r] up to
// cu_seqlens[r + 1]. ld: from one row of a matrix to the next, in elements.
#pragma once

#include <cstdint>

namespace moco {

struct bfloat16 {
  uint16_t bits;
};

enum class Activation { kNone, kGelu, kGeluTo8Bits, kGeluTanh, kRelu, kSilu, kTanh };

// LayerNorm, or RMSNorm, which subtracts no mean.
struct Norm {
  const float* weight;
  const float* bias;
  float eps;
  bool rms;
};

// Tokens as a product reads them, mostly as bytes: x[t][k] is about scale[t] * (values[t][k] - zero[t]).
struct Quantized {
  // (tokens, ld): the inputs, then anything up to a multiple of kInt8Inputs: weights are 0 there. For sparse products
  // in strips (see lay_in_strips), or floats in strips, without scale and zero.
  uint8_t* values;
  int64_t ld;
  float* scale;  // (tokens)
  float* zero;   // (tokens), a whole number

  Quantized from(int64_t token) const { return {values + token * ld, ld, scale + token, zero + token}; }
};

// Tokens are from 0 to kMaxToken. Where a processor sums products of bytes in 16 bits (AVX2), a sum holds the products
// of four inputs: 0, 1, 4 and 5 of eight, or 2, 3, 6 and 7. Of an output's weights for those four neither the positive
// nor the negative ones may exceed kMaxInt8Sum together: 255 * 128 < 2^15.
constexpr int64_t kMaxToken = 255;
constexpr int64_t kMaxInt8Sum = 128;
constexpr int64_t kInt8Inputs = 8;  // int8 weights have as many inputs as a multiple of this, zeros behind the last

// The right operand of a product, (inputs, columns), in words of 4 bytes: one float32, two bfloat16 or four int8 of
// successive inputs. Columns lie in blocks of kBlock, the columns of a block side by side; behind the last column there
// may be anything, but memory there must be, up to a whole block.
constexpr int64_t kBlock = 16;
constexpr int64_t kWordBytes = 4;
struct Columns {
  const void* words;
  int64_t ld;     // words from one input's word to the next
  int64_t block;  // words from one block to the next
};

// A panel of kSparsePanel outputs without the zeros of their weights. Its outputs go in groups of kSparseGroup; those
// of a group have one list of inputs together, or one each, as long as the longest of them (filled up with zeros). A
// step takes one entry of each list: a word of tokens, or several successive ones.
constexpr int64_t kSparsePanel = 64;
constexpr int64_t kSparseGroup = 4;
struct SparsePanel {
  const uint16_t* inputs;  // (steps, lists): the first word of an entry
  const void* weights;     // (steps, lists, words of an entry, outputs of a list): float32, or four int8 of an output
  const int64_t* ends;     // (pieces, groups): where a group's steps of a piece of the inputs end, in that order
  const uint8_t* outputs;  // (pieces, groups, kSparseGroup): which of the panel's outputs they are
  int64_t first_step, pieces;
};

// Attention takes keys in blocks of kKeyBlock, the last one rounded up to kKeyStep, so that few shapes of products
// occur.
constexpr int64_t kKeyBlock = 64;
constexpr int64_t kKeyStep = 16;
// Weights in int16 are whole numbers beside the largest of so many keys: of one that is far above all others, the many
// that are less than half of a 2^14th of it together have at most 512 / 2^15 of the probability.
constexpr int64_t kKeySpan = 512;
static constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// What a token's embedding is summed from: (any, D) each, words times scale. Null: no positions, no types, no norm.
template <typename T>
struct EmbeddingTables {
  const T *words, *positions, *types;
  float scale;
  const Norm* norm;
};

// The kernels that read or write hidden states, for T = float and bfloat16; they compute in float,
// means of tokens in double.
template <typename T>
struct HiddenKernels {
  // out[t] = norm(scale * words[word[t]] + types[type[t]] + positions[position[t]]).
  //   word, position, type: (T); scratch: (D); out: (T, D)
  void (*embed)(const EmbeddingTables<T>& tables, const int64_t* word, const int64_t* position, const int64_t* type,
                int64_t tokens, int64_t D, float* scratch, T* out);

  // c = a b, or c + a b. Null for T = bfloat16 where the processor has no products of it.
  //   a: (M, K), K even for bfloat16; b: (K, N); c: (M, N), written over up to a whole block of columns
  void (*multiply)(int64_t M, int64_t N, int64_t K, const T* a, int64_t ld_a, const Columns& b, float* c, int64_t ld_c,
                   bool add);

  // out = activation(product + bias).
  //   product, out: (tokens, columns); bias: (columns)
  void (*bias_activation)(const float* product, int64_t ld_product, const float* bias, Activation activation,
                          int64_t tokens, int64_t columns, T* out, int64_t ld_out);

  // out = activation(gate + gate_bias) * (up + up_bias).
  //   gate, up, out: (tokens, columns); gate_bias, up_bias: (columns)
  void (*gated)(const float* gate, const float* up, int64_t ld_products, const float* gate_bias, const float* up_bias,
                Activation activation, int64_t tokens, int64_t columns, T* out, int64_t ld_out);

  // out = norm(product + bias + residual), or that sum itself where norm is nullptr; out may be residual.
  //   product: (tokens, D), written over; bias: (D); residual, out: (tokens, D)
  void (*add_residual)(float* product, const float* bias, const T* residual, const Norm* norm, int64_t tokens,
                       int64_t D, T* out);

  // out = norm(x); out may be x.
  //   x, out: (tokens, D)
  void (*normalize)(const T* x, int64_t ld, const Norm& norm, int64_t tokens, int64_t D, T* out, int64_t ld_out);

  // Rotary positions, in place: of each head the pairs (x[i], x[half + i]), i < half, turned by the angle whose cosine
  // and sine stand in cos[t][i] and sin[t][i].
  //   x: (tokens, heads, d), ld from token to token; cos, sin: (tokens, half)
  void (*rotate)(T* x, int64_t ld, const float* cos, const float* sin, int64_t tokens, int64_t heads, int64_t d,
                 int64_t half);

  // out = x * factor, each token by itself; one with a number that is not finite is NaN.
  //   x: (tokens, size); factor: (size)
  void (*quantize)(const T* x, int64_t ld, const float* factor, int64_t tokens, int64_t size, const Quantized& out);

  // Tokens as sparse products read them: the words of kStrip tokens side by side, 8, 16 or 32, as the instruction set
  // has it; bfloat16 as floats. Writes up to a whole strip.
  //   x: (tokens, words); out: (strips, words, kStrip), ld_out words for each token of a strip
  void (*lay_in_strips)(const T* x, int64_t ld, int64_t tokens, int64_t words, float* out, int64_t ld_out);

  // Zeros behind the last token up to a multiple of kKeyStep.
  //   values: (tokens, size); packed: (round_up(tokens, kKeyStep), size), bfloat16: (.. / 2, size, 2)
  void (*pack_values)(const T* values, int64_t ld, int64_t tokens, int64_t size, T* packed);

  // weights[q][k] = exp(scale * (scores[q][k] - max)), zeros behind the last key up to a multiple of kKeyStep, and
  // inverse[q] = 1 / their sum. weights may be scores.
  //   scores, weights: (queries, round_up(keys, kKeyStep)), of scores only the keys count; inverse: (queries)
  void (*softmax)(const float* scores, int64_t ld_scores, float scale, int64_t queries, int64_t keys, T* weights,
                  int64_t ld_weights, float* inverse);

  // out[r] = x[r] * factor[r].
  //   x, out: (rows, size); factor: (rows)
  void (*scale_rows)(const float* x, int64_t ld, const float* factor, int64_t rows, int64_t size, T* out,
                     int64_t ld_out);

  // received[k] += the sum over q of weights[q][k] * inverse[q].
  //   weights: (queries, keys), readable up to a whole vector; inverse: (queries); received: (keys)
  void (*add_received)(const T* weights, int64_t ld_weights, const float* inverse, int64_t queries, int64_t keys,
                       float* received);

  // scores[h][t] = dot(x[t], query[h]).
  //   x: (tokens, D); query: (heads, D); scores: (heads, tokens)
  void (*peek_scores)(const T* x, const float* query, int64_t tokens, int64_t D, int64_t heads, float* scores,
                      int64_t ld);

  // context[h] = inverse[h] * sum over t of weights[h][t] * x[t].
  //   x: (tokens, D); weights: (heads, tokens); inverse: (heads); context: (heads, D)
  void (*peek_context)(const T* x, const float* weights, int64_t ld, const float* inverse, int64_t tokens, int64_t D,
                       int64_t heads, T* context);

  // mean[r] = the mean of row r's tokens; torch: hidden[row].mean(0).
  //   hidden: (T, D), cu_seqlens: (rows + 1), mean: (rows, D)
  void (*mean_pool)(const T* hidden, const int32_t* cu_seqlens, int64_t rows, int64_t D, float* mean);
};

// Products with weights without their zeros, for one panel; of finite numbers they have the bits of those with all
// weights.
struct SparseKernels {
  // c = x W^T in float32; named by what an entry holds, outputs x words.
  //   x: tokens in strips; c: (tokens, columns), written over up to a whole block
  using Multiply = void (*)(int64_t tokens, int64_t columns, const Quantized& x, const SparsePanel& panel, float* c,
                            int64_t ld_c);
  Multiply multiply_1x1, multiply_1x4, multiply_4x1;

  // As multiply_int8, for entries of one word and one output.
  void (*multiply_int8)(int64_t tokens, int64_t columns, const Quantized& x, const SparsePanel& panel,
                        const float* scale, const float* sums, float* c, int64_t ld_c);
};

// Attention of models in int8: numbers as int16, two in a word of 32 bits, and exact sums of their products. Its result
// has the same bits with every instruction set, and takes half the time of float32's with VNNI.
struct Int16Attention {
  // The largest |x|, NaN where a number is not finite.
  //   x: (tokens, size)
  float (*largest)(const float* x, int64_t ld, int64_t tokens, int64_t size);

  // Queries and keys, times a factor: word i of a token holds inputs i and size / 2 + i. size is even.
  //   x: (tokens, size); out: (tokens, size / 2)
  void (*halves_to_int16)(const float* x, int64_t ld, float factor, int64_t tokens, int64_t size, uint32_t* out);

  // Values, times a factor: words of group g hold tokens 32 g + i and 32 g + 16 + i, i < 16; zeros behind the last.
  //   values: (tokens, size); out: (16 * groups of 2 * kKeyStep tokens, size)
  void (*values_to_int16)(const float* values, int64_t ld, float factor, int64_t tokens, int64_t size, uint32_t* out);

  // c = a b.
  //   a: (M, words); b: (words, N); c: (M, N), written over up to a whole block of columns
  void (*scores)(int64_t M, int64_t N, int64_t words, const uint32_t* a, int64_t ld_a, const Columns& b, int32_t* c,
                 int64_t ld_c);

  // c[m] = factor[m] a[m] b, or c[m] + that.
  //   factor: (M), ld_factor apart
  void (*context)(int64_t M, int64_t N, int64_t words, const uint32_t* a, int64_t ld_a, const Columns& b,
                  const float* factor, int64_t ld_factor, float* c, int64_t ld_c, bool add);

  // The softmax of each query over its keys from first to last, in spans of kKeySpan keys: the weight of a key is
  // weights[q][k] * parts[q][span], and 0 of all other keys. weights[q][k] = 2^14 * 2^(-scale / 2^12 * (max -
  // scores[q][k])), rounded, with the largest score of the span, in words as those of values. Any two scores are less
  // than 2^31 apart.
  //   scores: (queries, keys), readable up to a multiple of 32; weights: (queries, words); parts: (queries, spans);
  //   tops: (spans), written over
  void (*softmax)(const int32_t* scores, int64_t ld_scores, float scale, int64_t queries, int64_t first, int64_t last,
                  int64_t keys, uint32_t* weights, int64_t ld_weights, float* parts, int64_t ld_parts, int32_t* tops);

  // received[k] += the sum over q of weights[q][k] * part[q], for keys of one span.
  //   weights: (queries, words) as softmax leaves them; part: (queries), ld_parts apart; received: (keys)
  void (*add_received)(const uint32_t* weights, int64_t ld_weights, const float* part, int64_t ld_parts,
                       int64_t queries, int64_t keys, float* received);
};

struct KernelTable {
  const char* isa;
  bool fused;  // multiply-add is rounded once

  HiddenKernels<float> float32;
  HiddenKernels<bfloat16> bfloat16_;
  Int16Attention int16_attention;
  SparseKernels sparse;

  // Keys side by side, as a product's right operand, in words of 32 bits (one float or two bfloat16); zeros behind the
  // last key up to a multiple of kKeyStep.
  //   keys: (tokens, words); packed: (blocks of kKeyBlock tokens, words, kKeyBlock)
  void (*pack_keys)(const uint32_t* keys, int64_t ld, int64_t tokens, int64_t words, uint32_t* packed);

  // scores[q][k] += bias[q][k]; ld_bias may be any number, also below 0.
  //   bias, scores: (queries, keys)
  void (*add_to_scores)(const float* bias, int64_t ld_bias, int64_t queries, int64_t keys, float* scores,
                        int64_t ld_scores);

  // scores[q][k] += bias[k][q].
  //   bias: (keys, queries); scores: (queries, keys), where memory must be up to a multiple of kKeyStep
  void (*add_transposed_to_scores)(const float* bias, int64_t ld_bias, int64_t queries, int64_t keys, float* scores,
                                   int64_t ld_scores);

  // c[t][n] = x.scale[t] * scale[n] * (sum over k of x.values[t][k] * weights[n][k] - x.zero[t] * sums[n]), where
  // sums[n] is that of an output's weights.
  //   c: (tokens, columns), written over up to a whole block; scale, sums: (columns rounded up to kBlock)
  void (*multiply_int8)(int64_t tokens, int64_t columns, int64_t inputs, const Quantized& x, const Columns& weights,
                        const float* scale, const float* sums, float* c, int64_t ld_c);

  // score[r] = dot(x[r], weight) + bias; torch: x @ weight + bias.
  //   x: (rows, size), weight: (size), score: (rows)
  void (*linear_score)(const float* x, const float* weight, float bias, int64_t rows, int64_t size, float* score);

  // For each run r, copies its length[r] tokens of `stride` bytes each from token source[r] of `from` to token
  // target[r] of `to`. `from` may be `to` where runs move forward (target[r] <= source[r], both ascending).
  void (*copy_runs)(const char* from, char* to, const int64_t* source, const int64_t* target, const int64_t* length,
                    int64_t runs, int64_t stride);
};

// One table per instruction set; those that were not compiled are not linked either.
namespace generic {
extern const KernelTable table;
}
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
namespace avx512_vnni {
extern const KernelTable table;
}
namespace avx512_bf16 {
extern const KernelTable table;
}
namespace amx {
extern const KernelTable table;
}

}  // namespace moco
