// The last three steps of vsum and vmaxv, from eight lanes, and vsum of four vectors at once: AVX2 and AVX-512 alike.
#pragma once

#include <immintrin.h>

namespace stoke::kernels::STOKE_ISA {

static inline float sum8(__m256 h8) {
  const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
}
static inline float max8(__m256 h8) {
  const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
}
static inline void vsum4(const float* v, float* out) {
  __m128 h4[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 h8 = _mm256_add_ps(_mm256_loadu_ps(v + 16 * i), _mm256_loadu_ps(v + 16 * i + 8));
    h4[i] = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  }
  _MM_TRANSPOSE4_PS(h4[0], h4[1], h4[2], h4[3]);
  _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(h4[0], h4[2]), _mm_add_ps(h4[1], h4[3])));
}

}  // namespace stoke::kernels::STOKE_ISA
