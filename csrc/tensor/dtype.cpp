#include "tensor/dtype.h"

namespace moco {

int64_t element_size(DType dtype) {
  return with_type(dtype, []<typename T>(T) { return static_cast<int64_t>(sizeof(T)); });
}

bool is_floating(DType dtype) {
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16 || dtype == DType::kFloat32 || dtype == DType::kFloat64;
}

std::string name_of(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "torch.bool";
    case DType::kUInt8:
      return "torch.uint8";
    case DType::kInt8:
      return "torch.int8";
    case DType::kInt16:
      return "torch.int16";
    case DType::kInt32:
      return "torch.int32";
    case DType::kInt64:
      return "torch.int64";
    case DType::kFloat16:
      return "torch.float16";
    case DType::kBFloat16:
      return "torch.bfloat16";
    case DType::kFloat32:
      return "torch.float32";
    case DType::kFloat64:
      break;
  }
  return "torch.float64";
}

}  // namespace moco
