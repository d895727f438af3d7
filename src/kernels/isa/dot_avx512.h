// The integer dot product of quads with AVX-512 VNNI: vpdpbusd wants its first operand unsigned, so weights are stored
// as q + 128 and dot_start takes 128 * sum(x) back. See dot_portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace stoke::kernels::STOKE_ISA {

#ifdef STOKE_SIGNED_PANELS
static constexpr uint8_t kWeightXor = 0;
#else
static constexpr uint8_t kWeightXor = 0x80;
#endif

static inline I dot_start(I sum) { return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7)); }

static inline I dot_quad(I acc, const uint8_t* w, const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, w, sizeof quad);
  return _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(quad), _mm512_loadu_si512(x));
}

// Plain dot product of n (16 or 32) signed bytes.
static inline int32_t dot_bytes(const int8_t* w, const int8_t* x, int n) {
  int32_t sum = 0;
  for (int j = 0; j < n; ++j) sum += w[j] * x[j];
  return sum;
}

}  // namespace stoke::kernels::STOKE_ISA
