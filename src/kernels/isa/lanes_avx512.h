// Sixteen rows side by side with AVX-512 VNNI, for generic/row_lanes.h: W holds one dword of each row, WF one float.
#pragma once

#define STOKE_LANES

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr int kLanes = 16;

}  // namespace stoke::kernels::STOKE_ISA

#include "kernels/generic/row_sources.h"

namespace stoke::kernels::STOKE_ISA {

using W = __m512i;
using WF = __m512;
static constexpr int kTogether = 4, kFewTiles = 2;
static constexpr DotTakes kRowsTake = DotTakes::kUnsigned;

static inline WF wf_zero() { return _mm512_setzero_ps(); }
static inline WF wf_set1(float f) { return _mm512_set1_ps(f); }
static inline void wf_store(float* p, WF v) { _mm512_storeu_ps(p, v); }
static inline WF wf_mul(WF a, WF b) { return _mm512_mul_ps(a, b); }
static inline WF wf_fma(WF a, WF b, WF c) { return _mm512_fmadd_ps(a, b, c); }
static inline WF wf_neg(WF a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
static inline WF wf_from(W w) { return _mm512_cvtepi32_ps(w); }

static inline void w_store(uint8_t* p, W w) { _mm512_storeu_si512(p, w); }
static inline W w_zero() { return _mm512_setzero_si512(); }
static inline W w_set1(int32_t n) { return _mm512_set1_epi32(n); }
static inline W w_add(W a, W b) { return _mm512_add_epi32(a, b); }
static inline W w_sub(W a, W b) { return _mm512_sub_epi32(a, b); }
static inline W w_or(W a, W b) { return _mm512_or_si512(a, b); }
static inline W w_xor(W a, W b) { return _mm512_xor_si512(a, b); }
template <int kShift>
static inline W w_field(W w, int mask) {
  return _mm512_and_si512(_mm512_srli_epi32(w, kShift), _mm512_set1_epi32(mask));
}
template <int kByte>
static inline W w_signed_byte(W w) {
  return _mm512_srai_epi32(_mm512_slli_epi32(w, 24 - 8 * kByte), 24);
}
template <int kShift>
static inline W w_left(W w) {
  return _mm512_slli_epi32(w, kShift);
}
template <int kShift>
static inline W w_bits(W w, int mask) {
  if constexpr (kShift > 0) w = _mm512_srli_epi16(w, kShift);
  if constexpr (kShift < 0) w = _mm512_slli_epi16(w, -kShift);
  return _mm512_and_si512(w, _mm512_set1_epi8(static_cast<char>(mask)));
}
static inline W w_levels(W nibbles, const int8_t* table, int offset) {
  const __m128i levels =
      _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)), _mm_set1_epi8(static_cast<char>(offset)));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), nibbles);
}
template <int kQuad>
static inline W w_sixteens(W dwords) {
  constexpr int kByte = kQuad / 2 * 0x01010101;
  const __m512i spread =
      _mm512_broadcast_i32x4(_mm_set_epi32(kByte + 0x0c0c0c0c, kByte + 0x08080808, kByte + 0x04040404, kByte));
  const __m512i bit = _mm512_set1_epi32(static_cast<int>(0x08040201u << kQuad % 2 * 4));
  return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(_mm512_shuffle_epi8(dwords, spread), bit), 16);
}
static inline WF wf_mxfp4(W e) {
  const W normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const W tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  return _mm512_castsi512_ps(_mm512_mask_blend_epi32(_mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2)), normal, tiny));
}

// Four rows' 16 bytes, rows r, r + 4, r + 8 and r + 12.
static inline __m512i four_rows(const auto& rows, int r, size_t at) {
  auto part = [&](int row) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows(row) + at)); };
  const __m512i a = _mm512_castsi128_si512(part(r));
  const __m512i b = _mm512_mask_broadcast_i32x4(a, 0x00f0, part(r + 4));
  const __m512i c = _mm512_mask_broadcast_i32x4(b, 0x0f00, part(r + 8));
  return _mm512_mask_broadcast_i32x4(c, 0xf000, part(r + 12));
}

// Turns 4 x 4 dwords in each 128-bit part: out[j] holds dword j of each input.
static inline void turn4(const W* in, W* out) {
  const W a = _mm512_unpacklo_epi32(in[0], in[1]), b = _mm512_unpackhi_epi32(in[0], in[1]);
  const W c = _mm512_unpacklo_epi32(in[2], in[3]), d = _mm512_unpackhi_epi32(in[2], in[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

static inline void load_quads(const auto& rows, size_t at, W* w) {
  const W in[4] = {four_rows(rows, 0, at), four_rows(rows, 1, at), four_rows(rows, 2, at), four_rows(rows, 3, at)};
  turn4(in, w);
}

static inline W load_words(const Strips& rows, size_t at) {
  const W lane = _mm512_set_epi32(1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0);
  const W strip = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const W offsets = _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(rows.stride))),
                                     _mm512_mullo_epi32(strip, _mm512_set1_epi32(static_cast<int>(rows.strip))));
  return _mm512_i32gather_epi32(offsets, rows.base + at, 1);
}
static inline W load_words(const Scattered& rows, size_t at) {
  const auto* base = reinterpret_cast<const char*>(rows.offset + at);
  const __m256i a = _mm512_i64gather_epi32(_mm512_loadu_si512(rows.rows), base, 1);
  const __m256i b = _mm512_i64gather_epi32(_mm512_loadu_si512(rows.rows + 8), base, 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

struct Halves {
  WF low, high;
};
static inline Halves load_halves(const auto& rows, size_t at) {
  const W words = load_words(rows, at);
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)),
          _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)))};
}

[[gnu::always_inline]] static inline W w_dot(W sum, W w, W quad) { return _mm512_dpbusd_epi32(sum, w, quad); }

}  // namespace stoke::kernels::STOKE_ISA
