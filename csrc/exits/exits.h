// The exits of one site: score all rules, let the rows leave whose first rule fires, compact the rest.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "batch/features.h"
#include "batch/packed_batch.h"
#include "batch/results.h"
#include "exits/bag_of_tokens.h"
#include "exits/off_ramp.h"
#include "exits/streaks.h"
#include "tensor/tensor.h"

namespace moco {

// A feature by name, and what it is of each row: (rows, size) float32.
using PooledFeature = std::pair<std::string, Tensor>;

class Exits {
 public:
  // site: its place among the model's sites. count_streaks: false where no off-ramp of the whole model has a patience
  // above 1, so that nobody asks how long a streak is.
  Exits(int64_t site, int64_t classes, bool count_streaks);

  // A rule that fires where feature @ weight + bias > threshold, all in float32. weight: (size); logits: (C), with
  // which rows leave by it.
  void add_linear(int64_t rule_id, const Tensor& logits, const std::string& feature, const Tensor& weight, double bias,
                  double threshold);
  // An off-ramp: fires where its score is above the threshold of the class it predicts, and `patience` off-ramps of
  // the row in a row, this one included, predict that class. Rows leave with its own log-probabilities.
  // thresholds: (C), by predicted class. One that predicts no single class has one threshold, (1), and see Scoring.
  // log_odds: (2 C), slope and shift by predicted class, see scale_log_odds; empty: rows leave with what was scored.
  void add_off_ramp(int64_t rule_id, const std::string& feature, OffRamp off_ramp, std::vector<float> thresholds,
                    int64_t patience, std::vector<float> log_odds);
  // A bag of tokens, before the rows are embedded: fires where its score is above the threshold of the class it
  // predicts. Rows leave with its own log-probabilities. thresholds, log_odds: as of an off-ramp.
  void add_bag(int64_t rule_id, BagOfTokens bag, std::vector<float> thresholds, std::vector<float> log_odds);
  // A rule of the caller's own: it fires where the answer given to apply says so. logits: (C), with which rows leave.
  void add_callable(int64_t rule_id, const Tensor& logits);

  // Rows leave by the first rule that fires. fires: (rows) bool for each add_callable, in their
  // order. streaks: of this batch. features: what was pooled elsewhere, of a batch without hidden states: those that
  // the rules read, and the mean. Returns how many left. A score that is not finite never fires, nor does any rule on
  // a row with NaN or infinity in a token of the batch (of a peek, the first): it runs to the end, as it would without
  // rules. Nor does a flat rule fire on rows longer than it was fitted on.
  int64_t apply(PackedBatch& batch, Results& results, Streaks& streaks, const std::vector<Tensor>& fires,
                const std::vector<PooledFeature>& features = {}) const;

 private:
  struct Rule {
    int64_t id;
    std::vector<float> thresholds;        // (1) or (C)
    std::vector<float> logits = {};       // (C) that rows leave with; none: the off-ramp's or the bag's own
    std::optional<Feature> feature = {};  // none: the score is a bag's, or the caller's answer
    Tensor weight = {};                   // of a linear rule
    float bias = 0;
    std::optional<OffRamp> off_ramp = {};
    int64_t patience = 1;
    std::optional<BagOfTokens> bag = {};
    std::vector<float> log_odds = {};  // of an off-ramp or a bag: (2 C), or empty
  };
  // Features that several rules read, by feature and size.
  using Pooled = std::map<std::pair<Feature, int64_t>, Tensor>;

  // What the rules say of a batch's rows.
  struct Scores {
    Tensor scores;               // (rules, 2, rows) float32: scores and, where there are several, classes
    std::vector<Tensor> logits;  // of each off-ramp's or bag's rule (rows, C) float32
  };

  void add(Rule rule);
  std::vector<float> constant(const Tensor& logits) const;
  void check_log_odds(const std::vector<float>& log_odds, bool is_label) const;
  Scores scores(const PackedBatch& batch, const std::vector<Tensor>& fires, Pooled pooled) const;
  static Pooled checked(const PackedBatch& batch, const std::vector<PooledFeature>& features);
  static int64_t hidden_size(const PackedBatch& batch, const Pooled& pooled);
  static const Tensor& pool(const Rule& rule, int64_t size, const PackedBatch& batch, Pooled& pooled);
  static Tensor nan_where_broken(const Tensor& x);
  static void linear_score(const Rule& rule, const PackedBatch& batch, Pooled& pooled, float* score);

  int64_t site_;
  int64_t classes_;
  bool count_streaks_;
  std::vector<Rule> rules_;
};

}  // namespace moco
