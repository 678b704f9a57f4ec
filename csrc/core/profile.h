// Timers of the extension, summed over threads. They are off until start_profile.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace moco {

enum class ProfileSection { kExtension, kEmbed, kProducts, kAttention, kPeek, kNorms, kPrepare, kExits };
constexpr std::array kProfileSectionNames = {"extension", "embed", "products", "attention",
                                             "peek",      "norms", "prepare",  "exits"};

struct Profile {
  std::atomic<bool> on = false;
  std::array<std::atomic<int64_t>, kProfileSectionNames.size()> nanoseconds = {};
};

inline Profile& profile() {
  static Profile profile;
  return profile;
}

// A timer that adds its own lifetime to a section.
class Timed {
 public:
  explicit Timed(ProfileSection section) : section_(section), on_(profile().on.load(std::memory_order_relaxed)) {
    if (on_) start_ = std::chrono::steady_clock::now();
  }
  ~Timed() {
    if (!on_) return;
    const std::chrono::nanoseconds spent = std::chrono::steady_clock::now() - start_;
    profile().nanoseconds[static_cast<size_t>(section_)] += spent.count();
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  ProfileSection section_;
  bool on_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace moco
