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
#include <string_view>

#include "cache_replay.h"
#include "cache_traces.h"

namespace stoke::bench {
namespace {

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
  for (const Kind& kind : kinds(trace)) fmt::print("{},\n   ", json(kind.name, replay(trace, slots, kind), best));
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
