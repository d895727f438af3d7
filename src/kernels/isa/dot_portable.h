// The integer dot product of quads: acc[lane] += sum of four products of signed bytes. Portable twin.
//
// An instruction set whose dot product wants one unsigned operand stores weights with kWeightXor applied (0x80 turns
// q into q + 128) and takes the difference back through dot_start: exact either way.
#pragma once

#include <cstdint>
#include <cstring>

namespace stoke::kernels::STOKE_ISA {

static constexpr uint8_t kWeightXor = 0;

// What an accumulator starts from, given the sum of the activations' bytes over the group.
static inline I dot_start(I) { return iset1(0); }

// w: one quad of weights for all lanes; x: 16 quads of activations.
static inline I dot_quad(I acc, const uint8_t* w, const int8_t* x) {
  for (int l = 0; l < 16; ++l) {
    for (int j = 0; j < 4; ++j) acc.x[l] += static_cast<int8_t>(w[j]) * x[4 * l + j];
  }
  return acc;
}

// Plain dot product of n (16 or 32) signed bytes.
static inline int32_t dot_bytes(const int8_t* w, const int8_t* x, int n) {
  int32_t sum = 0;
  for (int j = 0; j < n; ++j) sum += w[j] * x[j];
  return sum;
}

}  // namespace stoke::kernels::STOKE_ISA
