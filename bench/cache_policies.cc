// Hit rates of the cache's policies on traces, beside two that know the future: the best static set (the units that
// the whole trace uses most, there from the start) and Belady's bound (which may also refuse to admit).
// lfu_recent keeps one token's uses (CacheOptions::recent); window_5 what the latest five tokens used, as far as it
// fits (LLM in a Flash), which lru contains. Caches start empty; a step's units stay leased until the step ends, as a
// layer's do in a pipeline. usage: bench_cache_policies [--trace FILE] [--slots N] [--layers N] [--neurons N] [--tokens
// N]
// [--seed N]; without --slots at a quarter, a half and three quarters of all units; prints one JSON object.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <queue>
#include <string_view>

#include "cache/unit_cache.h"
#include "cache_traces.h"

namespace stoke::bench {
namespace {

struct Rates {
  double all = 0;   // of all look-ups
  double late = 0;  // of those in the second half of the tokens
  double ns = 0;    // of CPU time for a look-up with its reserve, commit and release
};

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
    return {.all = static_cast<double>(hits_) / all, .late = static_cast<double>(late_) / late};
  }

 private:
  int64_t half_;
  const Trace& trace_;
  int64_t hits_ = 0;
  int64_t late_ = 0;
};

struct Kind {
  cache::PolicyKind policy = cache::PolicyKind::kLru;
  int64_t recent = 0;
  int32_t window = 1 << 30;  // tokens after which a unit counts as gone
};

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

// Keeps what is used again soonest. The heap holds (next use, unit) of every use in the past; a cached unit's newest
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

std::string json(std::string_view name, const Rates& rates, const Rates& best) {
  std::string text = fmt::format("\"{}\": {{\"hit\": {:.4f}, \"hit_late\": {:.4f}, \"of_static\": {:.3f}", name,
                                 rates.all, rates.late, rates.all / best.all);
  if (rates.ns > 0) text += fmt::format(", \"ns\": {:.0f}", rates.ns);
  return text + "}";
}

void report(const Trace& trace, int64_t slots) {
  static bool first = true;
  const Rates best = static_set(trace, slots);
  const double share = static_cast<double>(slots) / static_cast<double>(trace.units);
  fmt::print("{}\n  {{\"trace\": \"{}\", \"tokens\": {}, \"units\": {}, \"lookups\": {}, \"capacity\": {:.4g},\n   ",
             first ? "" : ",", trace.name, trace.tokens(), trace.units, trace.uses.size(), share);
  first = false;
  const auto token = static_cast<int64_t>(trace.uses.size()) / std::max<int64_t>(trace.tokens(), 1);
  const std::pair<const char*, Kind> kinds[] = {
      {"lru", {}},
      {"window_5", {.window = 5}},
      {"s3_fifo", {.policy = cache::PolicyKind::kS3Fifo}},
      {"lfu", {.policy = cache::PolicyKind::kLfu}},
      {"lfu_recent", {.policy = cache::PolicyKind::kLfu, .recent = token}},
  };
  for (const auto& [name, kind] : kinds) fmt::print("{},\n   ", json(name, replay(trace, slots, kind), best));
  fmt::print("{},\n   {}}}", json("static", best, best), json("belady", belady(trace, slots), best));
  std::fflush(stdout);
}

void report_all(const Trace& trace, int64_t slots) {
  if (slots > 0) return report(trace, std::min(slots, trace.units));
  for (const double share : {0.25, 0.50, 0.75}) {
    report(trace, std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(trace.units))));
  }
}

int run(int argc, char** argv) {
  int layers = 32;
  int64_t per_layer = 2048;
  int tokens = 512;
  uint64_t seed = 1;
  int64_t slots = 0;
  std::string path;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (flag == "--trace")
      path = value;
    else if (flag == "--slots")
      slots = std::atoll(value);
    else if (flag == "--layers")
      layers = std::atoi(value);
    else if (flag == "--neurons")
      per_layer = std::atoll(value);
    else if (flag == "--tokens")
      tokens = std::atoi(value);
    else if (flag == "--seed")
      seed = std::strtoull(value, nullptr, 10);
    else {
      fmt::print(stderr, "bench_cache_policies: unknown flag {}\n", flag);
      return 1;
    }
  }
  fmt::print("{{\"cache_policies\": [");
  if (!path.empty()) {
    report_all(from_file(path), slots);
  } else {
    for (const NeuronShape& shape : {published(), measured(), uniform()}) {
      report_all(neurons(shape, layers, per_layer, tokens, seed), slots);
    }
    for (const double stay : {0.0, 0.3, 0.6}) report_all(experts({.stay = stay}, tokens, seed), slots);
  }
  fmt::print("\n]}}\n");
  return 0;
}

}  // namespace
}  // namespace stoke::bench

int main(int argc, char** argv) { return stoke::bench::run(argc, argv); }
