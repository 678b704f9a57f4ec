// Arrays that the extension takes from Python, keeps, and gives back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "tensor/dtype.h"

namespace moco {

using Shape = std::vector<int64_t>;

// An array of numbers in this process's memory, in the words of torch.Tensor. It shares its memory with its copies and
// views, and with the torch.Tensor that it came from or became. It does not compute.
class Tensor {
 public:
  Tensor() = default;  // undefined
  // Memory of somebody else's, alive as long as `owner` is. strides: in numbers.
  Tensor(std::shared_ptr<void> owner, void* data, DType dtype, Shape sizes, Shape strides);

  // Contiguous memory that begins at a cache line; `empty` does not write it.
  static Tensor empty(Shape sizes, DType dtype);
  static Tensor zeros(Shape sizes, DType dtype);
  // (values): a copy.
  template <typename T>
  static Tensor of(const std::vector<T>& values);
  // Tensors of one dtype end to end along their first dimension: a copy.
  static Tensor concatenated(const std::vector<Tensor>& tensors);

  bool defined() const { return owner_ != nullptr; }
  DType dtype() const { return dtype_; }
  int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  const Shape& sizes() const { return sizes_; }
  const Shape& strides() const { return strides_; }
  // 0 where there is no such dimension.
  int64_t size(int64_t dimension) const { return dimension < dim() ? sizes_[static_cast<size_t>(dimension)] : 0; }
  int64_t numel() const;
  bool is_contiguous() const;

  // Its numbers, of whatever kind. A tensor is a handle: its numbers may be written though it is const.
  void* bytes() const { return data_; }
  template <typename T>
  T* data() const {
    if (dtype_ != DTypeOf<T>::value) throw std::logic_error("a tensor's numbers were taken for those of another kind");
    return static_cast<T*>(data_);
  }

  // Views.
  Tensor narrow(int64_t dimension, int64_t first, int64_t size) const;
  Tensor select(int64_t dimension, int64_t index) const;
  Tensor transposed(int64_t one, int64_t other) const;
  // Of contiguous memory.
  Tensor view(Shape sizes) const;

  // Contiguous; the tensor itself where it is what is asked for.
  Tensor contiguous() const;
  Tensor to(DType dtype) const;
  // Contiguous memory of its own.
  Tensor clone() const;

 private:
  std::shared_ptr<void> owner_;
  void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  Shape sizes_, strides_;
};

// Writes the numbers of one tensor over those of another that has the same sizes, converted to its kind.
void copy(const Tensor& from, const Tensor& to);

// Whether two tensors have the same dtype, sizes and bits.
bool equal(const Tensor& one, const Tensor& other);

template <typename T>
Tensor Tensor::of(const std::vector<T>& values) {
  const Tensor out = empty({static_cast<int64_t>(values.size())}, DTypeOf<T>::value);
  std::copy(values.begin(), values.end(), out.data<T>());
  return out;
}

}  // namespace moco
