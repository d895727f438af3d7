// Any bytes as a log of what fired (`stoke run --firings`), replayed through every policy of the cache. The first byte
// chooses how many slots there are. No policy that starts empty may find more than Belady's bound.
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>

#include "base/check.h"
#include "bench/cache_replay.h"
#include "bench/cache_traces.h"

namespace {

using namespace stoke::bench;

// Replays keep tables of all units: more would be a fuzzer of memory.
constexpr int64_t kUnitsMax = 1 << 14;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::istringstream text(std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  const auto trace = parse_trace(text, "t.firings");
  if (!trace.ok()) {
    CHECK(trace.status().message().find('\n') == std::string::npos);
    return 0;
  }
  CHECK(!trace->uses.empty() && trace->steps.back() == static_cast<int64_t>(trace->uses.size()));
  CHECK(trace->last.size() == trace->steps.size() && trace->tokens() > 0);
  for (const int32_t unit : trace->uses) CHECK(unit >= 0 && unit < trace->units);
  if (trace->units > kUnitsMax) return 0;
  const int64_t slots = 1 + data[0] * (trace->units - 1) / UINT8_MAX;
  const double bound = belady(*trace, slots).all;
  for (const Kind& kind : kinds(*trace)) CHECK(replay(*trace, slots, kind).all <= bound);
  CHECK(static_set(*trace, slots).all <= 1);
  return 0;
}
