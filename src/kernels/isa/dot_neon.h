// The integer dot product of quads with the dot product extension (sdot). See dot_portable.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr DotTakes kDotTakes = DotTakes::kEither;
static constexpr int kDotRows = 2;
static constexpr int kPanelRow = 4, kPanelQuad = 64;

static inline int8x16_t broadcast_quad(const void* p) {
  int32_t quad;
  std::memcpy(&quad, p, sizeof quad);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

template <typename C, int kQuads>
static inline void dot_rows(I start, const uint8_t* w, const int8_t* x, I* out) {
  out[0] = out[1] = start;
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    const int8x16_t a = broadcast_quad(w + kPanelQuad * j), b = broadcast_quad(w + kPanelRow + kPanelQuad * j);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int8x16_t tokens = vld1q_s8(x + 64 * j + 16 * i);
      out[0].q[i] = vdotq_s32(out[0].q[i], a, tokens);
      out[1].q[i] = vdotq_s32(out[1].q[i], b, tokens);
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA
