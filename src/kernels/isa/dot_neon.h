// The integer dot product of quads with the dot product extension (sdot). See dot_portable.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace stoke::kernels::STOKE_ISA {

static constexpr uint8_t kWeightXor = 0;

static inline I dot_start(I) { return iset1(0); }

static inline I dot_quad(I acc, const uint8_t* w, const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, w, sizeof quad);
  const int8x16_t wide = vreinterpretq_s8_s32(vdupq_n_s32(quad));
  for (int i = 0; i < 4; ++i) acc.q[i] = vdotq_s32(acc.q[i], wide, vld1q_s8(x + 16 * i));
  return acc;
}

// Plain dot product of n (16 or 32) signed bytes.
static inline int32_t dot_bytes(const int8_t* w, const int8_t* x, int n) {
  int32x4_t sum = vdupq_n_s32(0);
  for (int j = 0; j < n; j += 16) sum = vdotq_s32(sum, vld1q_s8(w + j), vld1q_s8(x + j));
  return vaddvq_s32(sum);
}

}  // namespace stoke::kernels::STOKE_ISA
