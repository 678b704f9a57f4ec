
#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "tensor/convert.h"
#include "tensor/memory.h"

namespace moco {

namespace {

int64_t product(const Shape& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

// What so many numbers take. Throws NoMemory where none could hold them.
size_t bytes_of(const Shape& sizes, DType dtype) {
  int64_t bytes = element_size(dtype);
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) throw NoMemory();
  }
  return static_cast<size_t>(bytes);
}

Shape contiguous_strides(const Shape& sizes) {
  Shape strides(sizes.size());
  int64_t next = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = next;
    next *= std::max<int64_t>(sizes[d], 1);
  }
  return strides;
}

// f(offset in one, offset in other, count, stride of one, stride of other) for every line along the last dimension.
template <typename F>
void for_lines(const Tensor& one, const Tensor& other, const F& f) {
  const int64_t dims = one.dim();
  if (one.numel() == 0) return;
  if (dims == 0) return f(0, 0, 1, 1, 1);
  const auto last = static_cast<size_t>(dims - 1);
  Shape index(last, 0);
  for (;;) {
    const int64_t from = std::inner_product(index.begin(), index.end(), one.strides().begin(), int64_t{0});
    const int64_t to = std::inner_product(index.begin(), index.end(), other.strides().begin(), int64_t{0});
    f(from, to, one.sizes()[last], one.strides()[last], other.strides()[last]);
    size_t d = last;
    while (d > 0 && ++index[d - 1] == one.sizes()[d - 1]) index[--d] = 0;
    if (d == 0) return;
  }
}

}  // namespace

Tensor::Tensor(std::shared_ptr<void> owner, void* data, DType dtype, Shape sizes, Shape strides)
    : owner_(std::move(owner)), data_(data), dtype_(dtype), sizes_(std::move(sizes)), strides_(std::move(strides)) {}

Tensor Tensor::empty(Shape sizes, DType dtype) {
  Memory memory = allocate(bytes_of(sizes, dtype));
  void* const data = memory.get();
  Shape strides = contiguous_strides(sizes);
  return {std::shared_ptr<void>(std::move(memory)), data, dtype, std::move(sizes), std::move(strides)};
}

Tensor Tensor::zeros(Shape sizes, DType dtype) {
  Tensor out = empty(std::move(sizes), dtype);
  std::memset(out.data_, 0, static_cast<size_t>(out.numel() * element_size(dtype)));
  return out;
}

Tensor Tensor::concatenated(const std::vector<Tensor>& tensors) {
  Shape sizes = tensors.front().sizes_;
  sizes[0] = 0;
  for (const Tensor& each : tensors) sizes[0] += each.size(0);
  Tensor out = empty(std::move(sizes), tensors.front().dtype_);
  int64_t first = 0;
  for (const Tensor& each : tensors) {
    copy(each, out.narrow(0, first, each.size(0)));
    first += each.size(0);
  }
  return out;
}

int64_t Tensor::numel() const { return product(sizes_); }

bool Tensor::is_contiguous() const {
  int64_t next = 1;
  for (size_t d = sizes_.size(); d-- > 0;) {
    if (sizes_[d] == 0) return true;
    if (sizes_[d] > 1 && strides_[d] != next) return false;
    next *= sizes_[d];
  }
  return true;
}

Tensor Tensor::narrow(int64_t dimension, int64_t first, int64_t size) const {
  const auto d = static_cast<size_t>(dimension);
  Tensor out = *this;
  out.data_ = static_cast<char*>(data_) + first * strides_.at(d) * element_size(dtype_);
  out.sizes_[d] = size;
  return out;
}

Tensor Tensor::select(int64_t dimension, int64_t index) const {
  Tensor out = narrow(dimension, index, 1);
  out.sizes_.erase(out.sizes_.begin() + dimension);
  out.strides_.erase(out.strides_.begin() + dimension);
  return out;
}

Tensor Tensor::transposed(int64_t one, int64_t other) const {
  Tensor out = *this;
  std::swap(out.sizes_.at(static_cast<size_t>(one)), out.sizes_.at(static_cast<size_t>(other)));
  std::swap(out.strides_.at(static_cast<size_t>(one)), out.strides_.at(static_cast<size_t>(other)));
  return out;
}

Tensor Tensor::view(Shape sizes) const {
  if (!is_contiguous() || product(sizes) != numel()) throw std::logic_error("a view must be of contiguous memory");
  Shape strides = contiguous_strides(sizes);
  return {owner_, data_, dtype_, std::move(sizes), std::move(strides)};
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return contiguous();
  const Tensor out = empty(sizes_, dtype);
  copy(*this, out);
  return out;
}

Tensor Tensor::clone() const {
  const Tensor out = empty(sizes_, dtype_);
  copy(*this, out);
  return out;
}

void copy(const Tensor& from, const Tensor& to) {
  if (from.sizes() != to.sizes()) throw std::logic_error("copied tensors must have the same sizes");
  with_type(from.dtype(), [&]<typename From>(From) {
    with_type(to.dtype(), [&]<typename To>(To) {
      const auto* read = from.data<From>();
      auto* write = to.data<To>();
      if (std::is_same_v<From, To> && from.is_contiguous() && to.is_contiguous()) {
        if (from.numel() > 0) std::memcpy(write, read, static_cast<size_t>(from.numel()) * sizeof(To));
        return;
      }
      for_lines(from, to, [&](int64_t first, int64_t target, int64_t count, int64_t step, int64_t target_step) {
        for (int64_t i = 0; i < count; ++i) write[target + i * target_step] = convert<To>(read[first + i * step]);
      });
    });
  });
}

bool equal(const Tensor& one, const Tensor& other) {
  if (one.dtype() != other.dtype() || one.sizes() != other.sizes()) return false;
  return with_type(one.dtype(), [&]<typename T>(T) {
    const Tensor a = one.contiguous();
    const Tensor b = other.contiguous();
    const auto bytes = static_cast<size_t>(a.numel()) * sizeof(T);
    return bytes == 0 || std::memcmp(a.data<T>(), b.data<T>(), bytes) == 0;
  });
}

}  // namespace moco
