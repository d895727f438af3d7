// Scattered rows for instruction sets of 128 or 256 bits: readers of the down types that stores use (for others the
// scalar ones of sparse.h serve), and up rows eight side by side.
#pragma once

#include "kernels/generic/gather_lanes.h"

namespace stoke::kernels::STOKE_ISA {

// The halves that `field` gives for `count` blocks, widened.
template <typename Block>
static inline void widen_scales(const Block* blocks, int64_t count, uint16_t Block::*field, float* out) {
  for (int64_t i = 0; i < count; i += 16) {
    uint16_t halves[16] = {};
    for (int64_t j = i; j < i + 16 && j < count; ++j) halves[j - i] = blocks[j].*field;
    vstore(out + i, vload_f16(halves));
  }
}

// Levels of 32 codes packed in 16 bytes: low nibbles first.
static inline void nibble_levels(const void* nibbles, int offset, V* w) {
  I low, high;
  inibbles(nibbles, &low, &high);
  w[0] = vfromi(isub(low, iset1(offset)));
  w[1] = vfromi(isub(high, iset1(offset)));
}

template <>
struct BlockReader<BlockQ4_0> {
  static void scales(const BlockQ4_0* blocks, int64_t count, float* d, float*) {
    widen_scales(blocks, count, &BlockQ4_0::d, d);
  }
  static void read(const BlockQ4_0& block, float d, float, V* w) {
    nibble_levels(block.qs, 8, w);
    for (int half = 0; half < 2; ++half) w[half] = vmul(vset1(d), w[half]);
  }
};

template <>
struct BlockReader<BlockQ4_1> {
  static void scales(const BlockQ4_1* blocks, int64_t count, float* d, float* m) {
    widen_scales(blocks, count, &BlockQ4_1::d, d);
    widen_scales(blocks, count, &BlockQ4_1::m, m);
  }
  static void read(const BlockQ4_1& block, float d, float m, V* w) {
    nibble_levels(block.qs, 0, w);
    for (int half = 0; half < 2; ++half) w[half] = vadd(vmul(vset1(d), w[half]), vset1(m));
  }
};

template <>
struct BlockReader<BlockQ8_0> {
  static void scales(const BlockQ8_0* blocks, int64_t count, float* d, float*) {
    widen_scales(blocks, count, &BlockQ8_0::d, d);
  }
  static void read(const BlockQ8_0& block, float d, float, V* w) {
    for (int half = 0; half < 2; ++half) w[half] = vmul(vset1(d), vfromi(iload_i8(block.qs + half * 16)));
  }
};

template <>
struct CodeReader<BlockQ4_0> {
  static void read(const std::byte* codes, V* out) { nibble_levels(codes, 8, out); }
};
template <>
struct CodeReader<BlockQ4_1> {
  static void read(const std::byte* codes, V* out) { nibble_levels(codes, 0, out); }
};

}  // namespace stoke::kernels::STOKE_ISA
