// How the weights of a synthetic model are made so that neurons fire and experts are chosen as asked.
//
// The residual stream has three kinds of dimensions. The first 32 hold the same value for every token: a row's weights
// there act as its bias, so a gate row has a firing probability, a router row a popularity. The next 32 hold an average
// over the last few tokens, written by the first layer's attention (synth_recency.h): rows that look there give much
// the same for consecutive tokens. The rest hold the token's embedding and what layers add, whose energy is known
// because the deviation of each output matrix is chosen for it. Nothing else writes the first 64 dimensions.
// Thread role: any; const after make(). Errors: kInvalid, naming the flag.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/synth_firing.h"
#include "formats/synth_recency.h"
#include "formats/synth_routing.h"
#include "formats/synth_shape.h"
#include "tensor/dtype.h"

namespace stoke::formats {

struct SynthActivity {
  double density = 0.12;  // mean share of neurons whose gate fires, where the activation is relu or drelu; 0: not set
  SynthSkew skew = SynthSkew::kPublished;
  double firing_locality = -1;  // share of firing neurons that fired at the previous token; -1: the skew's own
  bool hot_first = false;       // neurons in the order of their probability, not by chance
  double router_skew = 0;       // as in RoutingWish
  double router_locality = 0;
};

// What a tensor's bytes are made of.
struct SynthRecipe {
  double deviation = 0;            // of every value not told otherwise; 0: zeros
  bool reads_stream = false;       // its columns are the stream's dimensions:
  std::vector<float> constants;    //   (rows, repeating) the value of columns 0-31; empty: zero
  double slow_deviation = 0;       //   of columns 32-63; 0: zero
  int64_t stream_rows = 0;         // its rows are the stream's dimensions, this many (again for each expert): 0-63 zero
  double slow_rows_deviation = 0;  //   but 32-63 of this deviation
  bool vector = false;             // a norm: constants[0] everywhere
};

class SynthPlan {
 public:
  static constexpr int64_t kConstantDims = 32;
  static constexpr int64_t kSlowDims = 32;

  // Requires: complete_shape passed.
  static Result<SynthPlan> make(const SynthShape& shape, const SynthActivity& activity, uint64_t seed);

  // Whether anything was asked for; otherwise weights are plain random ones.
  bool active() const { return fires_ || routes_; }
  SynthRecipe recipe(const SynthTensor& tensor) const;
  // The type to store a tensor as, where `type` cannot hold what the recipe needs; kInvalid for a gate.
  Result<DType> adjust_type(const SynthTensor& tensor, DType type) const;

  // Probability of each neuron of a layer, in the order of its gate rows (experts one after another).
  std::vector<float> probabilities(int64_t layer) const;
  // Share of the tokens that use each expert of a layer; one number, 1, where it is dense.
  std::vector<double> expert_shares(int64_t layer) const;
  bool fires() const { return fires_; }

 private:
  SynthPlan(SynthShape shape, uint64_t seed) : shape_(std::move(shape)), seed_(seed) {}
  Status plan_firing(const SynthActivity& activity);
  Status plan_routing(const SynthActivity& activity);

  double stream_energy(int64_t layer) const;  // of a token's own dimensions
  double mean_square(int64_t layer) const;    // of the whole stream
  double down_deviation(int64_t layer) const;
  std::vector<float> gate_biases(int64_t layer) const;
  std::vector<float> router_biases(int64_t layer) const;
  double recency_value() const;
  std::vector<float> recency_rows(bool query) const;
  SynthRecipe first_attention(const SynthTensor& tensor) const;
  SynthRecipe reader(double slow_variance, int64_t layer) const;

  SynthShape shape_;
  uint64_t seed_;
  bool fires_ = false;
  bool routes_ = false;
  bool hot_first_ = false;
  bool slow_ = false;                // the slow dimensions are used
  std::vector<FiringCurve> curves_;  // (layers)
  double firing_slow_ = 0;           // share of the slow dimensions in a gate's variance
  Routing routing_;
  double router_slow_ = 0;
  Recency recency_;
};

}  // namespace stoke::formats
