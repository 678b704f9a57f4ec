// Activation functions by the names that Hugging Face gives them.
#pragma once

#include <string>

#include "core/checks.h"
#include "kernels/kernels.h"

namespace moco {

inline Activation activation_from_name(const std::string& name) {
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "silu") return Activation::kSilu;
  if (name == "tanh") return Activation::kTanh;
  MOCO_CHECK_VALUE(false, "activation must be one of gelu, gelu_new, relu, silu, tanh (got ", name, ")");
}

}  // namespace moco
