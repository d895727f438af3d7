// The integer dot product of quads: sdot where the table is compiled for it, else by products of sixteen bits. See
// dot_portable.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr DotTakes kDotTakes = DotTakes::kEither;
static constexpr int kDotRows = 2;
#ifdef __ARM_FEATURE_MATMUL_INT8
static constexpr int kPanelRow = 8, kPanelQuad = 4;  // and 128 bytes between pairs of quads: gemm_i8mm.h
#else
static constexpr int kPanelRow = 4, kPanelQuad = 64;
#endif

// sum + the dot products of a's quads with b's. Without sdot, two products must fit in sixteen bits: activations are
// never -128.
static inline int32x4_t dot_quad(int32x4_t sum, int8x16_t a, int8x16_t b) {
#ifdef __ARM_FEATURE_DOTPROD
  return vdotq_s32(sum, a, b);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vpadalq_s16(sum, vpaddq_s16(low, high));
#endif
}

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
      out[0].q[i] = dot_quad(out[0].q[i], a, tokens);
      out[1].q[i] = dot_quad(out[1].q[i], b, tokens);
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA
