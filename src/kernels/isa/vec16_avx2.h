// vec16_portable.h's functions with AVX2, FMA and F16C: two 256-bit halves. See there for the semantics.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/isa/sum_x86.h"

namespace stoke::kernels::STOKE_ISA {

struct V {
  __m256 lo, hi;
};
struct I {
  __m256i lo, hi;
};
constexpr int kVRegisters = 8;

static inline V vload(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void vstore(float* p, V v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
static inline V vset1(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
static inline V vzero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline V vload_n(const float* p, int n) {
  alignas(32) float t[16] = {};
  std::memcpy(t, p, sizeof(float) * static_cast<size_t>(n));
  return vload(t);
}
static inline void vstore_n(float* p, V v, int n) {
  alignas(32) float t[16];
  vstore(t, v);
  std::memcpy(p, t, sizeof(float) * static_cast<size_t>(n));
}
static inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
static inline V vload_f16(const uint16_t* p) { return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))}; }
static inline __m256 widen_bf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16));
}
static inline V vload_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
static inline void vstore_f16(uint16_t* p, V v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}

static inline V vadd(V a, V b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline V vsub(V a, V b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline V vmul(V a, V b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline V vdiv(V a, V b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline V vfma(V a, V b, V c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
static inline V vmax(V a, V b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
static inline V vmin(V a, V b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
static inline V vsqrt(V a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
static inline V vabs(V a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
static inline V vneg(V a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(sign, a.lo), _mm256_xor_ps(sign, a.hi)};
}
static inline V vround(V a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
static inline V vselect_gt(V a, V b, V x, V y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
}
static inline float vsum(V v) { return sum8(_mm256_add_ps(v.lo, v.hi)); }
static inline float vmaxv(V v) { return max8(_mm256_max_ps(v.lo, v.hi)); }

// Transposes sixteen vectors in place.
static inline void vtranspose(V* rows) {
  alignas(32) float t[16][16];
  for (int r = 0; r < 16; ++r) vstore(t[r], rows[r]);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < r; ++c) {
      const float x = t[r][c];
      t[r][c] = t[c][r];
      t[c][r] = x;
    }
  }
  for (int r = 0; r < 16; ++r) rows[r] = vload(t[r]);
}

static inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
static inline I iload(const int32_t* p) { return {load256(p), load256(p + 8)}; }
static inline void istore(int32_t* p, I v) {
  store256(p, v.lo);
  store256(p + 8, v.hi);
}
static inline I iset1(int32_t i) { return {_mm256_set1_epi32(i), _mm256_set1_epi32(i)}; }
static inline I iload_i8(const int8_t* p) {
  const __m128i bytes = load128(p);
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
// 16 bytes of two nibbles each.
static inline void inibbles(const void* p, I* low, I* high) {
  const __m128i bytes = load128(p), mask = _mm_set1_epi8(15);
  auto widen = [](__m128i b) { return I{_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128(b, 8))}; };
  *low = widen(_mm_and_si128(bytes, mask));
  *high = widen(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
}
static inline void istore_i8(int8_t* p, I v) {
  // packs_epi32 works within 128-bit halves; the permute puts the quadwords back in order.
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
static inline I iadd(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
static inline I isub(I a, I b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
template <int kBits>
static inline I ishift_left(I a) {
  return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
}
static inline int32_t isum(I v) {
  const __m256i h8 = _mm256_add_epi32(v.lo, v.hi);
  __m128i h = _mm_add_epi32(_mm256_castsi256_si128(h8), _mm256_extracti128_si256(h8, 1));
  h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}
static inline I vtoi(V v) { return {_mm256_cvtps_epi32(v.lo), _mm256_cvtps_epi32(v.hi)}; }
static inline V vfromi(I v) { return {_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)}; }
static inline __m256 pow2_half(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static inline V vpow2(I n) { return {pow2_half(n.lo), pow2_half(n.hi)}; }

using R = __m256;
constexpr int kRegLanes = 8;
constexpr int kMicroTokens = 3;  // 12 accumulators, 3 tokens, 1 row: all sixteen registers
static inline R rload(const float* p) { return _mm256_loadu_ps(p); }
static inline void rstore(float* p, R v) { _mm256_storeu_ps(p, v); }
static inline R rzero() { return _mm256_setzero_ps(); }
static inline R rfma(R a, R b, R c) { return _mm256_fmadd_ps(a, b, c); }

}  // namespace stoke::kernels::STOKE_ISA
