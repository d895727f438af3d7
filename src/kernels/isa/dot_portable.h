// The integer dot product of quads: sums of four products of bytes. Portable twin.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr DotTakes kDotTakes = DotTakes::kSigned;
static constexpr int kDotRows = 1;  // rows that dot_rows takes
// Bytes between a panel's rows and between its quads, for each 32 elements of sixteen rows: row after row here, or
// quad after quad.
static constexpr int kPanelRow = 32, kPanelQuad = 4;

// Sixteen tokens, a lane each: out[r] = start + the sum over kQuads quads of row r's codes (C: see codes.h) times
// activations. w: in a panel. x: (kQuads, 16, 4).
template <typename C, int kQuads>
static inline void dot_rows(I start, const uint8_t* w, const int8_t* x, I* out) {
  for (int j = 0; j < kQuads; ++j) {
    for (int l = 0; l < 16; ++l) {
      for (int e = 0; e < 4; ++e) start.x[l] += static_cast<int8_t>(w[kPanelQuad * j + e]) * x[(16 * j + l) * 4 + e];
    }
  }
  out[0] = start;
}

// Plain dot product of n (16 or 32) signed bytes.
static inline int32_t dot_bytes(const int8_t* w, const int8_t* x, int n) {
  int32_t sum = 0;
  for (int j = 0; j < n; ++j) sum += w[j] * x[j];
  return sum;
}

}  // namespace stoke::kernels::STOKE_ISA
