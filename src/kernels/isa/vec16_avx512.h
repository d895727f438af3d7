// vec16_portable.h's functions with AVX-512 (F, BW, DQ, VL). See there for the semantics.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/isa/sum_x86.h"

namespace stoke::kernels::STOKE_ISA {

using V = __m512;
using I = __m512i;
constexpr int kVRegisters = 32;

static inline V vload(const float* p) { return _mm512_loadu_ps(p); }
static inline void vstore(float* p, V v) { _mm512_storeu_ps(p, v); }
static inline V vset1(float f) { return _mm512_set1_ps(f); }
static inline V vzero() { return _mm512_setzero_ps(); }
static inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
static inline V vload_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void vstore_n(float* p, V v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
static inline V vload_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline V vload_bf16(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
static inline void vstore_f16(uint16_t* p, V v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline V vadd(V a, V b) { return _mm512_add_ps(a, b); }
static inline V vsub(V a, V b) { return _mm512_sub_ps(a, b); }
static inline V vmul(V a, V b) { return _mm512_mul_ps(a, b); }
static inline V vdiv(V a, V b) { return _mm512_div_ps(a, b); }
static inline V vfma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
static inline V vmax(V a, V b) { return _mm512_max_ps(a, b); }
static inline V vmin(V a, V b) { return _mm512_min_ps(a, b); }
static inline V vsqrt(V a) { return _mm512_sqrt_ps(a); }
static inline V vabs(V a) { return _mm512_abs_ps(a); }
static inline V vneg(V a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
static inline V vround(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline V vselect_gt(V a, V b, V x, V y) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
static inline float vsum(V v) { return sum8(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }
static inline float vmaxv(V v) { return max8(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }

// Transposes sixteen vectors in place: 32-bit and 64-bit unpacks inside 128-bit parts, then two rounds of part
// shuffles.
static inline void vtranspose(V* rows) {
  V t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
    const __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
    rows[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    rows[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    rows[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    rows[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    const V a = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0x88),
            b = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0x88);
    const V c = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0xdd),
            d = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, b, 0x88);
    t[i + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
    t[i + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

static inline I iload(const int32_t* p) { return _mm512_loadu_si512(p); }
static inline void istore(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
static inline I iset1(int32_t i) { return _mm512_set1_epi32(i); }
static inline I iload_i8(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline void istore_i8(int8_t* p, I v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
}
static inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
static inline I isub(I a, I b) { return _mm512_sub_epi32(a, b); }
template <int kBits>
static inline I ishift_left(I a) {
  return _mm512_slli_epi32(a, kBits);
}
static inline int32_t isum(I v) { return _mm512_reduce_add_epi32(v); }
static inline I vtoi(V v) { return _mm512_cvtps_epi32(v); }
static inline V vfromi(I v) { return _mm512_cvtepi32_ps(v); }
static inline V vpow2(I n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}

using R = __m512;
constexpr int kRegLanes = 16;
constexpr int kMicroTokens = 6;  // 24 accumulators, 4 rows, 1 token
static inline R rload(const float* p) { return _mm512_loadu_ps(p); }
static inline void rstore(float* p, R v) { _mm512_storeu_ps(p, v); }
static inline R rzero() { return _mm512_setzero_ps(); }
static inline R rfma(R a, R b, R c) { return _mm512_fmadd_ps(a, b, c); }

}  // namespace stoke::kernels::STOKE_ISA
