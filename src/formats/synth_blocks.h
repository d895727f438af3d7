// Random weights made directly in a stored type: no float is ever quantised.
//
// Decoded values have mean about 0 and the standard deviation asked for; block scales vary where the type has
// sub-scales, so that every field of a block is exercised. The same seed gives the same bytes on every machine.
// Thread role: any, one object per thread; no allocation after construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

namespace stoke::formats {

// xoshiro256++, seeded through splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  void fill(void* out, size_t bytes);

 private:
  std::array<uint64_t, 4> state_;
};

double normal_draw(Random& random);  // mean 0, deviation 1

template <typename T>
void shuffle(Random& random, std::vector<T>& values) {
  for (size_t left = values.size(); left > 1; --left) std::swap(values[left - 1], values[random.next() % left]);
}

class BlockSource {
 public:
  // Weights of `type` whose decoded values have standard deviation `deviation`.
  BlockSource(DType type, double deviation, uint64_t seed);
  // Fills `out` with the next blocks. Requires: out.size() is a multiple of the type's block_bytes.
  void fill(std::span<std::byte> out);

 private:
  void fill_floats(std::span<std::byte> out);
  void fill_mxfp4(std::span<std::byte> out);

  DType type_;
  Random random_;
  uint16_t scale_ = 0;              // of a quantised block, as half
  uint16_t offset_ = 0;             // its minimum, where the type has one
  uint8_t exponent_ = 0;            // MXFP4
  uint64_t exponent_up_below_ = 0;  // MXFP4: a draw below this takes the next exponent
  std::vector<std::byte> levels_;   // float types: the values to draw from, as stored
};

// Whether 32 elements of a row are blocks of their own that can hold any value: what put_constant takes.
bool takes_constant(DType type);
// Writes 32 elements equal to `value`. Requires: takes_constant(type); `out` is row_bytes(type, 32) long.
void put_constant(DType type, float value, std::span<std::byte> out);

}  // namespace stoke::formats
