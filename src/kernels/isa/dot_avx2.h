// The integer dot product of quads: acc[lane] += sum of four products of signed bytes. AVX2: a quad by widening to 16 bits.
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
// |w| * sign(x, w): the products of two bytes stay below 2 * 128 * 127 and so inside maddubs' 16 bits.
static inline __m256i dot_half(__m256i acc, __m256i w, __m256i w_abs, const int8_t* x) {
  const __m256i signed_x = _mm256_sign_epi8(load256(x), w);
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w_abs, signed_x), _mm256_set1_epi16(1)));
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
  int32_t sum = 0;
  for (int j = 0; j < n; ++j) sum += w[j] * x[j];
  return sum;
}

}  // namespace stoke::kernels::STOKE_ISA
