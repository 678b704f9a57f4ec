#include "linear/sparse_steps.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace moco {

namespace {

constexpr int64_t kGroups = kSparsePanel / kSparseGroup;

bool any_weight(const WordMatrix& weights, int64_t output, int64_t input, int64_t run) {
  if (output >= weights.outputs) return false;
  const uint32_t* first = weights.words + output * weights.inputs + input;
  return std::any_of(first, first + run, [](uint32_t word) { return word != 0; });
}

// The outputs of a panel, in the order in which they go into groups for the inputs [first, last): those with as many
// entries together, so that little is filled up. Outputs that share their entries stay where they are.
std::vector<uint8_t> order_of_outputs(const WordMatrix& weights, EntryShape shape, int64_t panel, int64_t first,
                                      int64_t last) {
  std::vector<uint8_t> order(kSparsePanel);
  std::iota(order.begin(), order.end(), uint8_t{0});
  if (shape.outputs > 1) return order;
  std::vector<int64_t> entries(kSparsePanel, 0);
  for (int64_t o = 0; o < kSparsePanel; ++o) {
    for (int64_t k = first; k < last; k += shape.run) {
      entries[static_cast<size_t>(o)] += any_weight(weights, panel * kSparsePanel + o, k, shape.run) ? 1 : 0;
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return entries[a] > entries[b]; });
  return order;
}

}  // namespace

SparseSteps::SparseSteps(const WordMatrix& weights, EntryShape shape, int64_t piece)
    : shape_(shape), pieces_((weights.inputs + piece - 1) / piece) {
  const int64_t panels = (weights.outputs + kSparsePanel - 1) / kSparsePanel;
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t first = 0; first < weights.inputs; first += piece) {
      const int64_t last = std::min(first + piece, weights.inputs);
      const std::vector<uint8_t> order = order_of_outputs(weights, shape, panel, first, last);
      for (int64_t group = 0; group < kGroups; ++group) {
        add_group(weights, panel, &order[static_cast<size_t>(group * kSparseGroup)], first, last);
      }
      outputs_.insert(outputs_.end(), order.begin(), order.end());
    }
  }
  density_ = static_cast<double>(weights_.size()) / static_cast<double>(weights.outputs * weights.inputs);
}

// Appends the steps of one group for the inputs [first, last).
void SparseSteps::add_group(const WordMatrix& weights, int64_t panel, const uint8_t* outputs, int64_t first,
                            int64_t last) {
  const int64_t lists = kSparseGroup / shape_.outputs;
  const auto outputs_of = [&](int64_t list) {
    return std::span(outputs + list * shape_.outputs, static_cast<size_t>(shape_.outputs));
  };
  std::vector<std::vector<int64_t>> entries(static_cast<size_t>(lists));
  size_t steps = 0;
  for (int64_t list = 0; list < lists; ++list) {
    std::vector<int64_t>& own = entries[static_cast<size_t>(list)];
    for (int64_t k = first; k < last; k += shape_.run) {
      const auto holds = [&](uint8_t o) { return any_weight(weights, panel * kSparsePanel + o, k, shape_.run); };
      if (std::ranges::any_of(outputs_of(list), holds)) own.push_back(k);
    }
    steps = std::max(steps, own.size());
  }
  for (size_t step = 0; step < steps; ++step) {
    for (int64_t list = 0; list < lists; ++list) {
      const std::vector<int64_t>& own = entries[static_cast<size_t>(list)];
      const bool filled_up = step >= own.size();
      const int64_t input = filled_up ? first : own[step];
      inputs_.push_back(static_cast<uint16_t>(input));
      for (int64_t k = input; k < input + shape_.run; ++k) {
        for (const uint8_t o : outputs_of(list)) {
          const int64_t output = panel * kSparsePanel + o;
          weights_.push_back(filled_up || output >= weights.outputs ? 0 : weights.words[output * weights.inputs + k]);
        }
      }
    }
  }
  ends_.push_back(std::ssize(inputs_) / lists);
}

SparsePanel SparseSteps::panel(int64_t number) const {
  const int64_t ends = number * pieces_ * kGroups;
  const int64_t first = ends == 0 ? 0 : ends_[static_cast<size_t>(ends - 1)];
  return {inputs_.data(), weights_.data(), ends_.data() + ends, outputs_.data() + number * pieces_ * kSparsePanel,
          first,          pieces_};
}

}  // namespace moco
