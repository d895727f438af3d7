// The integer dot product of quads with AVX2: |w| times x with w's sign, by maddubs or, where the translation unit has
// AVX-VNNI, by vpdpbusd. See dot_portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace stoke::kernels::STOKE_ISA {

static constexpr uint8_t kWeightXor = 0;

// What an accumulator starts from, given the sum of the activations' bytes over the group.
static inline I dot_start(I) { return iset1(0); }

// w: one quad of weights for all lanes; x: 16 quads of activations.
// |w| * sign(x, w): the products of two bytes stay below 2 * 128 * 127 and so inside maddubs' 16 bits.
static inline __m256i dot_half(__m256i acc, __m256i w, __m256i w_abs, const int8_t* x) {
  const __m256i signed_x = _mm256_sign_epi8(load256(x), w);
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(acc, w_abs, signed_x);
#else
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w_abs, signed_x), _mm256_set1_epi16(1)));
#endif
}
static inline I dot_quad(I acc, const uint8_t* w, const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, w, sizeof quad);
  const __m256i wide = _mm256_set1_epi32(quad);
  const __m256i w_abs = _mm256_abs_epi8(wide);
  return {dot_half(acc.lo, wide, w_abs, x), dot_half(acc.hi, wide, w_abs, x + 32)};
}

// Plain dot product of n (16 or 32) signed bytes.
static inline int32_t dot_bytes(const int8_t* w, const int8_t* x, int n) {
  __m256i sum = _mm256_setzero_si256();
  if (n == 32) {
    const __m256i bytes = load256(w);
    sum = dot_half(sum, bytes, _mm256_abs_epi8(bytes), x);
  } else {
    sum = _mm256_madd_epi16(_mm256_cvtepi8_epi16(load128(w)), _mm256_cvtepi8_epi16(load128(x)));
  }
  __m128i h = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}

}  // namespace stoke::kernels::STOKE_ISA
