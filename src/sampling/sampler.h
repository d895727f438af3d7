// Logits to one token.
//
// The chain, in this order (llama.cpp's default order): logit bias; repetition, frequency and presence penalties; DRY;
// top-k; typical; top-p; min-p; temperature; a draw. Truncation thus looks at the probabilities at temperature 1.
// Temperature 0 takes the highest logit after DRY, the lowest id where several are equal.
// Equal options, seed, history and logits give the same token on every machine: the random numbers are our own, the
// exponential is our own, and every sum has a fixed order.
// Thread role: the control thread. Memory: all of it is taken by the constructor (about 28 bytes a vocabulary entry);
// sample() and accept() allocate nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "sampling/random.h"
#include "stoke/sampling.h"

namespace stoke::sampling {

struct SamplerShape {
  int64_t vocabulary = 0;
  int64_t history_max = 0;  // tokens remembered for penalties and DRY; older ones are forgotten
};

// One token that may still be chosen.
struct Candidate {
  int32_t id = 0;
  float logit = 0;
  double p = 0;
};

// kInvalid, naming the field, when a value makes no sense.
Status check_options(const SamplingOptions& options, int64_t vocabulary);

class Sampler {
 public:
  // Requires: check_options() is ok; shape.vocabulary > 0.
  Sampler(const SamplingOptions& options, const SamplerShape& shape);

  // Remembers a token of the prompt or a chosen one.
  void accept(int32_t token);
  void reset();  // forgets the tokens and starts the seed anew

  // logits: (vocabulary). Fails with kInvalid on NaN, +infinity, or when no token is possible.
  Result<int32_t> sample(std::span<const float> logits);

  // What the last sample() drew from, probabilities summing to 1; one certain candidate when greedy.
  std::span<const Candidate> candidates() const { return {candidates_.data(), candidates_.size()}; }

 private:
  bool edits_logits() const;
  std::span<const float> edit(std::span<const float> logits);
  void apply_penalties();
  void apply_dry();
  void match_lengths(std::span<const int32_t> tail);
  void gather_top_k(std::span<const float> logits);
  void gather_all(std::span<const float> logits);
  void weigh(double temperature);
  void sort_prefix(size_t n);
  void keep_typical();
  void keep_top_p();
  void keep_min_p();
  int32_t draw();
  std::span<const int32_t> recent(int last_n) const;

  SamplingOptions options_;
  SamplerShape shape_;
  Random random_;
  std::vector<int32_t> history_;       // the newest history_max tokens, oldest first
  std::vector<float> edited_;          // (vocabulary)
  std::vector<int32_t> counts_;        // (vocabulary) occurrences or match lengths of the step under way; else zero
  std::vector<int64_t> matches_;       // (history_max) DRY's match lengths, newest token first
  std::vector<char> breaker_;          // (vocabulary) where DRY is on
  std::vector<Candidate> candidates_;  // capacity: vocabulary
  size_t sorted_ = 0;                  // the first so many candidates are in descending order
};

}  // namespace stoke::sampling
