// Eight rows side by side with AVX2, for generic/row_lanes.h: W holds one dword of each row, WF one float.
#pragma once

#define STOKE_LANES

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr int kLanes = 8;

}  // namespace stoke::kernels::STOKE_ISA

#include "kernels/generic/row_sources.h"

namespace stoke::kernels::STOKE_ISA {

using W = __m256i;
using WF = __m256;
// Tokens whose sums are under way side by side, of how many times kLanes rows.
static constexpr int kTogether = 2, kFewTiles = 1;

static constexpr DotTakes kRowsTake = kDotTakes;

[[gnu::always_inline]] static inline WF wf_zero() { return _mm256_setzero_ps(); }
[[gnu::always_inline]] static inline WF wf_set1(float f) { return _mm256_set1_ps(f); }
static inline void wf_store(float* p, WF v) { _mm256_storeu_ps(p, v); }
[[gnu::always_inline]] static inline WF wf_mul(WF a, WF b) { return _mm256_mul_ps(a, b); }
[[gnu::always_inline]] static inline WF wf_fma(WF a, WF b, WF c) { return _mm256_fmadd_ps(a, b, c); }
[[gnu::always_inline]] static inline WF wf_neg(WF a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
[[gnu::always_inline]] static inline WF wf_from(W w) { return _mm256_cvtepi32_ps(w); }

static inline void w_store(uint8_t* p, W w) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), w); }
[[gnu::always_inline]] static inline W w_zero() { return _mm256_setzero_si256(); }
[[gnu::always_inline]] static inline W w_set1(int32_t n) { return _mm256_set1_epi32(n); }
[[gnu::always_inline]] static inline W w_add(W a, W b) { return _mm256_add_epi32(a, b); }
[[gnu::always_inline]] static inline W w_sub(W a, W b) { return _mm256_sub_epi32(a, b); }
[[gnu::always_inline]] static inline W w_or(W a, W b) { return _mm256_or_si256(a, b); }
[[gnu::always_inline]] static inline W w_xor(W a, W b) { return _mm256_xor_si256(a, b); }
// Bits of dwords.
template <int kShift>
[[gnu::always_inline]] static inline W w_field(W w, int mask) {
  return _mm256_and_si256(_mm256_srli_epi32(w, kShift), _mm256_set1_epi32(mask));
}
template <int kByte>
[[gnu::always_inline]] static inline W w_signed_byte(W w) {
  return _mm256_srai_epi32(_mm256_slli_epi32(w, 24 - 8 * kByte), 24);
}
template <int kShift>
[[gnu::always_inline]] static inline W w_left(W w) {
  return _mm256_slli_epi32(w, kShift);
}
// Bits of bytes: shifted right (left where kShift is negative), masked.
template <int kShift>
[[gnu::always_inline]] static inline W w_bits(W w, int mask) {
  if constexpr (kShift > 0) w = _mm256_srli_epi16(w, kShift);
  if constexpr (kShift < 0) w = _mm256_slli_epi16(w, -kShift);
  return _mm256_and_si256(w, _mm256_set1_epi8(static_cast<char>(mask)));
}
// table[byte] + offset, for bytes below 16.
[[gnu::always_inline]] static inline W w_levels(W nibbles, const int8_t* table, int offset) {
  const __m128i levels = _mm_add_epi8(load128(table), _mm_set1_epi8(static_cast<char>(offset)));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), nibbles);
}
// Bits [4 kQuad, 4 kQuad + 4) of each dword, as bytes of 16 or 0.
template <int kQuad>
[[gnu::always_inline]] static inline W w_sixteens(W dwords) {
  constexpr int kByte = kQuad / 2, kLow = kQuad % 2 * 4;
  const __m256i spread = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(kByte, kByte, kByte, kByte, kByte + 4, kByte + 4, kByte + 4, kByte + 4, kByte + 8, kByte + 8,
                    kByte + 8, kByte + 8, kByte + 12, kByte + 12, kByte + 12, kByte + 12));
  const __m256i bit = _mm256_set1_epi32(static_cast<int>(0x08040201u << kLow));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(dwords, spread), bit), bit);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}
// Half of 2^(e - 127), see mxfp4_scale.
[[gnu::always_inline]] static inline WF wf_mxfp4(W e) {
  const W normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const W tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

// Sixteen bytes at `at` of each row: w[j] holds dword j.
[[gnu::always_inline]] static inline void load_quads(const auto& rows, size_t at, W* w) {
  auto two = [&](int r) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(rows(r) + at)), load128(rows(r + 4) + at), 1);
  };
  const W r0 = two(0), r1 = two(1), r2 = two(2), r3 = two(3);
  const W a = _mm256_unpacklo_epi32(r0, r1), b = _mm256_unpackhi_epi32(r0, r1);
  const W c = _mm256_unpacklo_epi32(r2, r3), d = _mm256_unpackhi_epi32(r2, r3);
  w[0] = _mm256_unpacklo_epi64(a, c);
  w[1] = _mm256_unpackhi_epi64(a, c);
  w[2] = _mm256_unpacklo_epi64(b, d);
  w[3] = _mm256_unpackhi_epi64(b, d);
}

static inline __m128i load32(const uint8_t* p) {
  int32_t dword;
  std::memcpy(&dword, p, sizeof dword);
  return _mm_cvtsi32_si128(dword);
}

// Four bytes at `at` of each row.
[[gnu::always_inline]] static inline W load_words(const auto& rows, size_t at) {
  auto four = [&](int r) {
    return _mm_unpacklo_epi64(_mm_unpacklo_epi32(load32(rows(r) + at), load32(rows(r + 1) + at)),
                              _mm_unpacklo_epi32(load32(rows(r + 2) + at), load32(rows(r + 3) + at)));
  };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(four(0)), four(4), 1);
}

// The two halves (binary16) at `at` of each row.
struct Halves {
  WF low, high;
};
[[gnu::always_inline]] static inline Halves load_halves(const auto& rows, size_t at) {
  auto four = [&](int r) {
    return _mm_unpacklo_epi32(_mm_unpacklo_epi16(load32(rows(r) + at), load32(rows(r + 1) + at)),
                              _mm_unpacklo_epi16(load32(rows(r + 2) + at), load32(rows(r + 3) + at)));
  };
  const __m128i a = four(0), b = four(4);
  return {_mm256_cvtph_ps(_mm_unpacklo_epi64(a, b)), _mm256_cvtph_ps(_mm_unpackhi_epi64(a, b))};
}

#ifdef __AVXVNNI__
[[gnu::always_inline]] static inline W w_dot(W sum, W w, W quad) { return _mm256_dpbusd_avx_epi32(sum, w, quad); }
#else
#define STOKE_DOT_QUADS
// See row_lanes.h.
template <typename Code, int kQuads, int kTiles, int kTokens>
[[gnu::always_inline]] static inline void dot_quads(const W* const (&w)[kTiles], const int8_t* x, int64_t step,
                                                    W (&sums)[kTiles][kTokens]) {
  static_assert(kTiles == 1);
  constexpr int kRun = dot_run<Code, kQuads>();
  __m256i pairs[kTokens];
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256i two = dot_pairs<Code>(w[0][j], broadcast_quad(x + j * step + 4 * t));
      pairs[t] = j % kRun == 0 ? two : _mm256_add_epi16(pairs[t], two);
      if (j % kRun == kRun - 1) sums[0][t] = add_pairs(sums[0][t], pairs[t]);
    }
  }
}
#endif

}  // namespace stoke::kernels::STOKE_ISA
