// Opening near the least budget, for tests.
//
// What the process holds moves between two looks at it, under a sanitizer by megabytes: a budget that inspect found
// enough can be a little below the minimum a moment later. Thread role: the test's thread. Ownership: values.
#pragma once

#include <cstdint>

#include "stoke/stoke.h"

namespace stoke {

// What `open(options)` gives; where its budget is refused, with more and more of it.
template <typename Open>
auto near_least(ModelOptions options, const Open& open) {
  auto opened = open(options);
  for (int64_t more = int64_t{2} << 20; more <= int64_t{64} << 20; more *= 2) {
    if (opened.ok() || opened.status().code() != Code::kNoMemory || options.memory_bytes == 0) break;
    options.memory_bytes += more;
    opened = open(options);
  }
  return opened;
}

}  // namespace stoke
