#include "cache_replay.h"

#include <algorithm>
#include <ctime>
#include <queue>
#include <utility>

namespace stoke::bench {
namespace {

// Counts hits by half of the trace.
class Tally {
 public:
  explicit Tally(const Trace& trace) : half_(static_cast<int64_t>(trace.steps.size() / 2)), trace_(trace) {}
  void add(int64_t step, bool hit) {
    hits_ += hit ? 1 : 0;
    late_ += hit && step >= half_ ? 1 : 0;
  }
  Rates rates() const {
    const auto all = static_cast<double>(trace_.uses.size());
    const double late = all - static_cast<double>(half_ > 0 ? trace_.steps[half_ - 1] : 0);
    return {.all = static_cast<double>(hits_) / all, .late = static_cast<double>(late_) / std::max(late, 1.0)};
  }

 private:
  int64_t half_;
  const Trace& trace_;
  int64_t hits_ = 0;
  int64_t late_ = 0;
};

}  // namespace

std::vector<Kind> kinds(const Trace& trace) {
  const auto token = static_cast<int64_t>(trace.uses.size()) / std::max<int64_t>(trace.tokens(), 1);
  return {{.name = "lru"},
          {.name = "window_5", .window = 5},
          {.name = "s3_fifo", .policy = cache::PolicyKind::kS3Fifo},
          {.name = "lfu", .policy = cache::PolicyKind::kLfu},
          {.name = "lfu_recent", .policy = cache::PolicyKind::kLfu, .recent = token}};
}

Rates replay(const Trace& trace, int64_t slots, const Kind& kind) {
  cache::UnitCache cache({.units = trace.units, .slots = slots, .policy = kind.policy, .recent = kind.recent});
  std::vector<int32_t> used_at(trace.units, 0);
  int32_t token = 0;
  Tally tally(trace);
  std::vector<cache::SlotId> leased;
  std::vector<cache::SlotId> loading;
  int64_t at = 0;
  const std::clock_t start = std::clock();
  for (size_t step = 0; step < trace.steps.size(); ++step) {
    leased.clear();
    loading.clear();
    for (; at < trace.steps[step]; ++at) {
      const cache::UnitId unit{trace.uses[at]};
      const cache::SlotId slot = cache.find(unit);
      tally.add(static_cast<int64_t>(step), slot.valid() && token - used_at[unit.index] <= kind.window);
      used_at[unit.index] = token;
      if (slot.valid()) {
        leased.push_back(slot);
      } else if (const cache::SlotId taken = cache.reserve(unit, false); taken.valid()) {
        loading.push_back(taken);
      }
    }
    for (const cache::SlotId slot : loading) {
      cache.commit(slot, true);
      leased.push_back(slot);
    }
    for (const cache::SlotId slot : leased) cache.release(slot);
    if (!trace.last[step]) continue;
    cache.end_pass();
    ++token;
  }
  const double took_ns = static_cast<double>(std::clock() - start) * 1e9 / CLOCKS_PER_SEC;
  Rates rates = tally.rates();
  rates.ns = took_ns / static_cast<double>(trace.uses.size());
  return rates;
}

Rates static_set(const Trace& trace, int64_t slots) {
  std::vector<int32_t> counts(trace.units);
  for (const int32_t unit : trace.uses) ++counts[unit];
  std::vector<int32_t> order(trace.units);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::nth_element(order.begin(), order.begin() + std::min<int64_t>(slots, trace.units - 1), order.end(),
                   [&](int32_t a, int32_t b) { return counts[a] > counts[b]; });
  std::vector<bool> inside(trace.units);
  for (int64_t i = 0; i < slots; ++i) inside[order[i]] = true;
  Tally tally(trace);
  int64_t at = 0;
  for (size_t step = 0; step < trace.steps.size(); ++step) {
    for (; at < trace.steps[step]; ++at) tally.add(static_cast<int64_t>(step), inside[trace.uses[at]]);
  }
  return tally.rates();
}

// The heap holds (next use, unit) of every use in the past; a cached unit's newest
// entry alone lies in the future, so stale ones never come first.
Rates belady(const Trace& trace, int64_t slots) {
  const auto total = static_cast<int32_t>(trace.uses.size());
  std::vector<int32_t> next(total);
  std::vector<int32_t> seen(trace.units, total);
  for (int32_t i = total - 1; i >= 0; --i) {
    next[i] = seen[trace.uses[i]];
    seen[trace.uses[i]] = i;
  }
  std::priority_queue<std::pair<int32_t, int32_t>> farthest;
  std::vector<bool> inside(trace.units);
  int64_t used = 0;
  Tally tally(trace);
  int32_t at = 0;
  for (size_t step = 0; step < trace.steps.size(); ++step) {
    for (; at < trace.steps[step]; ++at) {
      const int32_t unit = trace.uses[at];
      tally.add(static_cast<int64_t>(step), inside[unit]);
      used += inside[unit] ? 0 : 1;
      inside[unit] = true;
      farthest.emplace(next[at], unit);
      if (used <= slots) continue;
      while (!inside[farthest.top().second]) farthest.pop();
      inside[farthest.top().second] = false;
      farthest.pop();
      --used;
    }
  }
  return tally.rates();
}

}  // namespace stoke::bench
