// The structs of DLPack 0.8 (https://dmlc.github.io/dlpack), by which libraries of arrays hand them to each other.
#pragma once

#include <cstdint>

namespace moco::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCudaHost = 3 };  // those of memory that this process can read
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBFloat = 4, kBool = 6 };

struct Device {
  int32_t type, id;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Array {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in numbers; null: contiguous
  uint64_t byte_offset;
};

struct ManagedArray {
  Array array;
  void* manager;
  void (*deleter)(ManagedArray*);
};

// The name of a capsule that holds a ManagedArray, and of one from which it was taken.
constexpr const char* kCapsule = "dltensor";
constexpr const char* kTaken = "used_dltensor";

}  // namespace moco::dlpack
