// Where the time of a forward goes, summed over threads; off unless asked for.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace moco {

enum class Part { kExtension, kEmbed, kProducts, kAttention, kPeek, kNorms, kQuantize, kExits };
constexpr std::array kPartNames = {"extension", "embed", "products", "attention", "peek", "norms", "quantize", "exits"};

struct Profile {
  std::atomic<bool> on = false;
  std::array<std::atomic<int64_t>, kPartNames.size()> nanoseconds = {};
};

inline Profile& profile() {
  static Profile profile;
  return profile;
}

// Adds its lifetime to a part.
class Timed {
 public:
  explicit Timed(Part part) : part_(part), on_(profile().on.load(std::memory_order_relaxed)) {
    if (on_) start_ = std::chrono::steady_clock::now();
  }
  ~Timed() {
    if (!on_) return;
    const std::chrono::nanoseconds spent = std::chrono::steady_clock::now() - start_;
    profile().nanoseconds[static_cast<size_t>(part_)] += spent.count();
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  Part part_;
  bool on_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace moco
