// What the unit cache costs a neuron: look-ups of one layer after another, as the sparse FFN makes them; Google
// Benchmark. A 7B model's neurons (32 layers of 14336) with half of them cached, and a 47B model's four million with a
// third. usage: bench_unit_cache [--benchmark_filter=...]; times are for one look-up with what belongs to it (of a busy
// machine believe the CPU column).
#include "cache/unit_cache.h"

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

namespace stoke::cache {
namespace {

constexpr int64_t kUnits7B = 32 * 14336;
constexpr int64_t kUnits47B = 32 * 8 * 14336;

CacheOptions options_for(const benchmark::State& state) {
  const int64_t units = state.range(1);
  return {.units = units,
          .slots = units == kUnits7B ? units / 2 : units / 3,
          .policy = static_cast<PolicyKind>(state.range(0))};
}

// Ascending units with gaps: an eighth of them, as a token uses.
std::vector<int32_t> one_token(int64_t units, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> uses;
  for (int64_t unit = 0; unit < units; ++unit) {
    if (random() % 8 == 0) uses.push_back(static_cast<int32_t>(unit));
  }
  return uses;
}

// Cached units only: find and release.
void hits(benchmark::State& state) {
  const CacheOptions options = options_for(state);
  UnitCache cache(options);
  for (int64_t i = 0; i < options.slots; ++i) cache.commit(cache.reserve({static_cast<int32_t>(i)}, true), false);
  const std::vector<int32_t> uses = one_token(options.slots, 1);
  size_t at = 0;
  for (auto _ : state) {
    cache.release(cache.find({uses[at]}));
    at = at + 1 < uses.size() ? at + 1 : 0;
  }
}

// Other units every time, in a full cache: find, reserve, and where a slot is given commit and release.
void misses(benchmark::State& state) {
  const CacheOptions options = options_for(state);
  UnitCache cache(options);
  std::vector<std::vector<int32_t>> tokens;
  for (uint32_t seed = 1; seed <= 16; ++seed) tokens.push_back(one_token(options.units, seed));
  size_t token = 0;
  size_t at = 0;
  for (auto _ : state) {
    const UnitId unit{tokens[token][at]};
    if (const SlotId slot = cache.find(unit); slot.valid()) {
      cache.release(slot);
    } else if (const SlotId taken = cache.reserve(unit, state.range(2) != 0); taken.valid()) {
      cache.commit(taken, true);
      cache.release(taken);
    }
    if (++at < tokens[token].size()) continue;
    at = 0;
    token = (token + 1) % tokens.size();
  }
  const auto all = static_cast<double>(cache.counts().hits + cache.counts().misses);
  state.counters["hit"] = static_cast<double>(cache.counts().hits) / all;
}

void arguments(benchmark::internal::Benchmark* bench, bool must) {
  bench->ArgNames({"policy", "units", "must"});
  for (const PolicyKind kind : {PolicyKind::kLru, PolicyKind::kS3Fifo, PolicyKind::kLfu}) {
    for (const int64_t units : {kUnits7B, kUnits47B}) bench->Args({static_cast<int64_t>(kind), units, must ? 1 : 0});
  }
}

BENCHMARK(hits)->Apply([](auto* bench) { arguments(bench, false); });
BENCHMARK(misses)->Name("mixed")->Apply([](auto* bench) { arguments(bench, false); });
BENCHMARK(misses)->Name("mixed")->Apply([](auto* bench) { arguments(bench, true); });

}  // namespace
}  // namespace stoke::cache

BENCHMARK_MAIN();
