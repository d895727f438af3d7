// Replays of traces (cache_traces.h): every policy of the cache, and two that know the future.
// Thread role: any; pure functions. Requires: a trace that uses units, at least one slot and at most all units.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/unit_cache.h"
#include "cache_traces.h"

namespace stoke::bench {

struct Rates {
  double all = 0;   // of all look-ups
  double late = 0;  // of those in the second half of the tokens
  double ns = 0;    // of CPU time for a look-up with its reserve, commit and release
};

struct Kind {
  const char* name = "lru";
  cache::PolicyKind policy = cache::PolicyKind::kLru;
  int64_t recent = 0;
  int32_t window = 1 << 30;  // tokens after which a unit counts as gone
};

// All that bench_cache_policies compares.
std::vector<Kind> kinds(const Trace& trace);
Rates replay(const Trace& trace, int64_t slots, const Kind& kind);
// The units that the whole trace uses most, there from the start.
Rates static_set(const Trace& trace, int64_t slots);
// Keeps what is used again soonest; may refuse to admit. No policy that starts empty has more hits.
Rates belady(const Trace& trace, int64_t slots);

}  // namespace stoke::bench
