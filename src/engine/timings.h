// Counters of a model's work, and how they become Stats.
//
// Thread role: the control thread. Memory: a ring of the latest step times, taken at construction; recording allocates
// nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "stoke/stoke.h"

namespace stoke::engine {

using TimePoint = std::chrono::steady_clock::time_point;

inline TimePoint now() { return std::chrono::steady_clock::now(); }
inline double seconds_since(TimePoint start) { return std::chrono::duration<double>(now() - start).count(); }

class Timings {
 public:
  Timings();

  void reset();
  void add_prefill(int64_t tokens, double seconds);
  // One decoding step that gave `tokens` tokens (one a sequence).
  void add_step(int64_t tokens, double seconds);
  void set_first_token(double seconds) { first_token_s_ = seconds; }
  // Reads what the process holds now, for the peak.
  void sample_memory();

  int64_t generated() const { return step_tokens_; }
  void fill(Stats* stats) const;

 private:
  static constexpr size_t kSteps = 1 << 16;
  int64_t prefill_tokens_ = 0;
  double prefill_s_ = 0;
  int64_t step_tokens_ = 0;
  int64_t steps_ = 0;
  double step_s_ = 0;
  double first_token_s_ = 0;
  int64_t peak_bytes_ = 0;
  std::vector<float> latest_;  // (kSteps) seconds a step, a ring
};

}  // namespace stoke::engine
