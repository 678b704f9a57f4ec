// Streaks of off-ramps that predict the same class one after the other: `patience` waits for them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moco {

// For each row of a batch, the class that the last off-ramp predicted, and how many in a row have predicted it.
class Streaks {
 public:
  // The length of the row's streak with this prediction. To be called once for each off-ramp that the row meets.
  int64_t add(int32_t row_id, int64_t predicted) {
    const auto row = static_cast<size_t>(row_id);
    if (row >= streaks_.size()) streaks_.resize(row + 1);
    Streak& streak = streaks_[row];
    streak.length = streak.predicted == predicted ? streak.length + 1 : 1;
    streak.predicted = predicted;
    return streak.length;
  }

 private:
  struct Streak {
    int64_t predicted = -1, length = 0;
  };
  std::vector<Streak> streaks_;  // by row
};

}  // namespace moco
