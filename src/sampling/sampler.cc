#include "sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "sampling/exp.h"

namespace stoke::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A total order: higher logits first, then lower ids.
bool before(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

struct Peak {
  float value = -kInfinity;
  bool not_a_number = false;
};

// The highest logit, in 16 lanes so that compilers use vectors.
Peak find_peak(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> high;
  high.fill(-kInfinity);
  std::array<int32_t, kLanes> nan{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      high[lane] = x > high[lane] ? x : high[lane];
      nan[lane] |= x != x ? 1 : 0;
    }
  }
  for (; i < logits.size(); ++i) {
    high[0] = std::max(high[0], logits[i]);
    nan[0] |= logits[i] != logits[i] ? 1 : 0;
  }
  Peak peak;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    peak.value = std::max(peak.value, high[lane]);
    peak.not_a_number = peak.not_a_number || nan[lane] != 0;
  }
  return peak;
}

Status invalid(const std::string& what) { return Status(Code::kInvalid, "sampling: " + what); }

}  // namespace

Status check_options(const SamplingOptions& o, int64_t vocabulary) {
  if (!(o.temperature >= 0) || std::isinf(o.temperature)) return invalid("temperature must be 0 or more");
  if (o.top_k < 0) return invalid("top-k must be 0 (all) or more");
  if (!(o.top_p > 0 && o.top_p <= 1)) return invalid("top-p must lie in (0, 1]");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return invalid("min-p must lie in [0, 1]");
  if (!(o.typical_p > 0 && o.typical_p <= 1)) return invalid("typical-p must lie in (0, 1]");
  if (!(o.repeat_penalty > 0) || std::isinf(o.repeat_penalty)) return invalid("repeat penalty must be above 0");
  if (!std::isfinite(o.frequency_penalty) || !std::isfinite(o.presence_penalty)) {
    return invalid("frequency and presence penalties must be finite");
  }
  if (!(o.dry.multiplier >= 0) || !(o.dry.base >= 1) || o.dry.allowed_length < 1) {
    return invalid("DRY needs multiplier >= 0, base >= 1 and allowed length >= 1");
  }
  for (const auto& [token, bias] : o.logit_bias) {
    if (token < 0 || token >= vocabulary) return invalid("logit bias for a token outside of the vocabulary");
    if (!(bias < kInfinity)) return invalid("logit bias must be finite or -infinity");
  }
  return ok_status();
}

Sampler::Sampler(const SamplingOptions& options, const SamplerShape& shape)
    : options_(options), shape_(shape), random_(options.seed) {
  CHECK(shape.vocabulary > 0 && shape.history_max >= 0);
  const auto vocabulary = static_cast<size_t>(shape.vocabulary);
  history_.reserve(static_cast<size_t>(shape.history_max));
  candidates_.reserve(vocabulary);
  if (edits_logits()) {
    edited_.resize(vocabulary);
    counts_.resize(vocabulary);
  }
  if (options.dry.multiplier > 0) {
    matches_.resize(static_cast<size_t>(shape.history_max));
    breaker_.resize(vocabulary);
    for (const int32_t token : options.dry.breakers) {
      if (token >= 0 && token < shape.vocabulary) breaker_[static_cast<size_t>(token)] = 1;
    }
  }
}

void Sampler::accept(int32_t token) {
  if (shape_.history_max == 0 || token < 0 || token >= shape_.vocabulary) return;
  if (static_cast<int64_t>(history_.size()) == shape_.history_max) history_.erase(history_.begin());
  history_.push_back(token);
}

void Sampler::reset() {
  history_.clear();
  random_ = Random(options_.seed);
}

Result<int32_t> Sampler::sample(std::span<const float> logits) {
  CHECK(static_cast<int64_t>(logits.size()) == shape_.vocabulary);
  if (edits_logits()) logits = edit(logits);
  const Peak peak = find_peak(logits);
  if (peak.not_a_number || peak.value == kInfinity) {
    return Status(Code::kInvalid, "the model gave a logit that is not a number: its weights or activations overflow");
  }
  if (peak.value == -kInfinity) return invalid("no token is possible: every logit is -infinity");
  candidates_.clear();
  if (options_.temperature == 0) {
    const auto best = std::find(logits.begin(), logits.end(), peak.value) - logits.begin();
    candidates_.push_back({static_cast<int32_t>(best), peak.value, 1.0});
    return candidates_[0].id;
  }
  if (options_.top_k > 0 && options_.top_k < shape_.vocabulary) {
    gather_top_k(logits);
  } else {
    gather_all(logits);
  }
  if (options_.typical_p < 1) keep_typical();
  if (options_.top_p < 1) keep_top_p();
  if (options_.min_p > 0) keep_min_p();
  weigh(options_.temperature);
  return draw();
}

bool Sampler::edits_logits() const {
  return !options_.logit_bias.empty() || options_.repeat_penalty != 1 || options_.frequency_penalty != 0 ||
         options_.presence_penalty != 0 || options_.dry.multiplier > 0;
}

std::span<const float> Sampler::edit(std::span<const float> logits) {
  std::copy(logits.begin(), logits.end(), edited_.begin());
  for (const auto& [token, bias] : options_.logit_bias) edited_[static_cast<size_t>(token)] += bias;
  if (options_.repeat_penalty != 1 || options_.frequency_penalty != 0 || options_.presence_penalty != 0) {
    apply_penalties();
  }
  if (options_.dry.multiplier > 0) apply_dry();
  return edited_;
}

std::span<const int32_t> Sampler::recent(int last_n) const {
  const size_t n = last_n < 0 ? history_.size() : std::min(history_.size(), static_cast<size_t>(last_n));
  return std::span(history_).last(n);
}

void Sampler::apply_penalties() {
  const auto window = recent(options_.penalty_last_n);
  for (const int32_t token : window) ++counts_[static_cast<size_t>(token)];
  for (const int32_t token : window) {
    int32_t& count = counts_[static_cast<size_t>(token)];
    if (count == 0) continue;  // seen already
    float& logit = edited_[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    logit -= static_cast<float>(count) * options_.frequency_penalty + options_.presence_penalty;
    count = 0;
  }
}

// matches_[j]: how many tokens that end with the one j before the newest equal the end of `tail`. The Z function of the
// reversed tail: linear in its length.
void Sampler::match_lengths(std::span<const int32_t> tail) {
  const auto n = static_cast<int64_t>(tail.size());
  const auto at = [&](int64_t i) { return tail[static_cast<size_t>(n - 1 - i)]; };
  matches_[0] = n;
  int64_t left = 0;
  int64_t right = 0;
  for (int64_t i = 1; i < n; ++i) {
    int64_t length = i < right ? std::min(right - i, matches_[static_cast<size_t>(i - left)]) : 0;
    while (i + length < n && at(length) == at(i + length)) ++length;
    matches_[static_cast<size_t>(i)] = length;
    if (i + length > right) {
      left = i;
      right = i + length;
    }
  }
}

void Sampler::apply_dry() {
  const auto tail = recent(options_.dry.last_n);
  const auto n = static_cast<int64_t>(tail.size());
  int64_t unbroken = 0;  // tokens since the last breaker: no repetition is longer
  while (unbroken < n && breaker_[static_cast<size_t>(tail[static_cast<size_t>(n - 1 - unbroken)])] == 0) ++unbroken;
  if (n < 2 || unbroken < options_.dry.allowed_length) return;
  match_lengths(tail);
  const auto next_of = [&](int64_t j) { return static_cast<size_t>(tail[static_cast<size_t>(n - j)]); };
  for (int64_t j = 1; j < n; ++j) {
    const auto length = static_cast<int32_t>(std::min(matches_[static_cast<size_t>(j)], unbroken));
    if (length >= options_.dry.allowed_length) counts_[next_of(j)] = std::max(counts_[next_of(j)], length);
  }
  for (int64_t j = 1; j < n; ++j) {
    int32_t& length = counts_[next_of(j)];
    if (length == 0) continue;
    if (breaker_[next_of(j)] == 0) {
      float penalty = options_.dry.multiplier;
      for (int i = options_.dry.allowed_length; i < length && penalty < 1e30F; ++i) penalty *= options_.dry.base;
      edited_[next_of(j)] -= penalty;
    }
    length = 0;
  }
}

// A heap of the best k, worst on top: one comparison a token once it has filled.
void Sampler::gather_top_k(std::span<const float> logits) {
  const auto k = static_cast<size_t>(options_.top_k);
  float bar = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > bar)) continue;  // of equal logits the lower id, met first, stays
    if (candidates_.size() == k) {
      std::pop_heap(candidates_.begin(), candidates_.end(), before);
      candidates_.pop_back();
    }
    candidates_.push_back({static_cast<int32_t>(i), logits[i], 0});
    std::push_heap(candidates_.begin(), candidates_.end(), before);
    if (candidates_.size() == k) bar = candidates_.front().logit;
  }
  std::sort(candidates_.begin(), candidates_.end(), before);
  sorted_ = candidates_.size();
}

void Sampler::gather_all(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInfinity) candidates_.push_back({static_cast<int32_t>(i), logits[i], 0});
  }
  sorted_ = 0;
}

void Sampler::weigh(double temperature) {
  float peak = -kInfinity;
  for (const Candidate& c : candidates_) peak = std::max(peak, c.logit);
  double sum = 0;
  for (Candidate& c : candidates_) {
    c.p = exact_exp((static_cast<double>(c.logit) - peak) / temperature);
    sum += c.p;
  }
  for (Candidate& c : candidates_) c.p /= sum;
}

void Sampler::sort_prefix(size_t n) {
  n = std::min(n, candidates_.size());
  if (n <= sorted_) return;
  const auto first = candidates_.begin() + static_cast<std::ptrdiff_t>(sorted_);
  std::partial_sort(first, candidates_.begin() + static_cast<std::ptrdiff_t>(n), candidates_.end(), before);
  sorted_ = n;
}

// Keeps the candidates whose surprise -log p is nearest to its mean, the entropy. With p = exp(l) / sum the logarithms
// of the sum cancel: the distance is |mean(l) - l|.
void Sampler::keep_typical() {
  weigh(1);
  double mean = 0;
  for (const Candidate& c : candidates_) mean += c.p * static_cast<double>(c.logit);
  std::sort(candidates_.begin(), candidates_.end(), [&](const Candidate& a, const Candidate& b) {
    const double distance_a = std::fabs(mean - static_cast<double>(a.logit));
    const double distance_b = std::fabs(mean - static_cast<double>(b.logit));
    return distance_a != distance_b ? distance_a < distance_b : before(a, b);
  });
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && sum < static_cast<double>(options_.typical_p)) sum += candidates_[kept++].p;
  candidates_.resize(kept);
  sorted_ = 0;
}

// Sorts no more than it needs: usually a few hundred of a large vocabulary hold most of the probability.
void Sampler::keep_top_p() {
  weigh(1);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && sum < static_cast<double>(options_.top_p)) {
    if (kept == sorted_) sort_prefix(std::max<size_t>(256, 4 * sorted_));
    sum += candidates_[kept++].p;
  }
  candidates_.resize(kept);
  sorted_ = kept;
}

void Sampler::keep_min_p() {
  weigh(1);
  double peak = 0;
  for (const Candidate& c : candidates_) peak = std::max(peak, c.p);
  const double bar = static_cast<double>(options_.min_p) * peak;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.p < bar; });
}

int32_t Sampler::draw() {
  double left = random_.uniform();
  const Candidate* chosen = nullptr;
  for (const Candidate& c : candidates_) {
    if (!(c.p > 0)) continue;
    chosen = &c;  // also what remains when the probabilities round to a little under 1
    if (left < c.p) break;
    left -= c.p;
  }
  return chosen->id;
}

}  // namespace stoke::sampling
