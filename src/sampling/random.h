// SplitMix64: a 64-bit counter through a mixing function. Small, seekable, and the same everywhere: the seed is the
// whole state, so that equal seeds give equal tokens on every machine.
// Thread role: any, one object a thread.
#pragma once

#include <cstdint>

namespace stoke::sampling {

class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  // In [0, 1), on a grid of 2^-53.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

}  // namespace stoke::sampling
