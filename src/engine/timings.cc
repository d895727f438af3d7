#include "engine/timings.h"

#include <algorithm>
#include <cmath>

#include "sys/memory.h"

namespace stoke::engine {

Timings::Timings() : latest_(kSteps) {}

void Timings::reset() {
  prefill_tokens_ = step_tokens_ = steps_ = 0;
  prefill_s_ = step_s_ = first_token_s_ = 0;
}

void Timings::add_prefill(int64_t tokens, double seconds) {
  prefill_tokens_ += tokens;
  prefill_s_ += seconds;
}

void Timings::add_step(int64_t tokens, double seconds) {
  latest_[static_cast<size_t>(steps_) % kSteps] = static_cast<float>(seconds);
  ++steps_;
  step_tokens_ += tokens;
  step_s_ += seconds;
}

// Anonymous memory; what is locked is part of it.
void Timings::sample_memory() {
  peak_bytes_ = std::max(peak_bytes_, static_cast<int64_t>(sys::process_memory().anonymous));
}

void Timings::fill(Stats* stats) const {
  stats->prompt_tokens = prefill_tokens_;
  stats->generated_tokens = step_tokens_;
  stats->time_to_first_token_s = first_token_s_;
  stats->peak_rss_bytes = peak_bytes_;
  if (prefill_s_ > 0) stats->prefill_tokens_per_s = static_cast<double>(prefill_tokens_) / prefill_s_;
  if (steps_ == 0) return;
  stats->decode_tokens_per_s = static_cast<double>(step_tokens_) / step_s_;
  stats->token_s_mean = step_s_ / static_cast<double>(steps_);
  std::vector<float> sorted(latest_.begin(), latest_.begin() + std::min<int64_t>(steps_, kSteps));
  std::sort(sorted.begin(), sorted.end());
  // Nearest rank: the smallest value that so many per cent of the steps do not exceed.
  const auto percentile = [&](double p) {
    const auto rank = static_cast<size_t>(std::ceil(p * static_cast<double>(sorted.size())));
    return static_cast<double>(sorted[std::max<size_t>(rank, 1) - 1]);
  };
  stats->token_s_p50 = percentile(0.50);
  stats->token_s_p90 = percentile(0.90);
  stats->token_s_p99 = percentile(0.99);
}

}  // namespace stoke::engine
