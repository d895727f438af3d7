// The integer dot product of quads with AVX2, or AVX-VNNI where the translation unit has it. See dot_portable.h.
//
// AVX2 has vpmaddubsw: unsigned times signed bytes, two products added in 16 bits. Unsigned codes go in as they are;
// as many steps are added in 16 bits as their size allows (4-bit codes: all eight quads of a group), before one more
// instruction widens to 32. Signed codes go in as |w|, their sign moved to the activations, and are widened at once.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

#ifdef __AVXVNNI__
static constexpr DotTakes kDotTakes = DotTakes::kUnsigned;
#else
static constexpr DotTakes kDotTakes = DotTakes::kEither;
#endif
static constexpr int kDotRows = 2;
static constexpr int kPanelRow = 4, kPanelQuad = 64;

static inline __m256i broadcast_quad(const void* p) {
  int32_t quad;
  std::memcpy(&quad, p, sizeof quad);
  return _mm256_set1_epi32(quad);
}

#ifndef __AVXVNNI__
// Two products of each 16 bits' bytes.
template <typename C>
static inline __m256i dot_pairs(__m256i w, __m256i x) {
  if constexpr (C::kSigned) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_maddubs_epi16(w, x);
}

// Quads whose pairs can be added in 16 bits: a power of two, at most kQuads.
template <typename C, int kQuads>
static constexpr int dot_run() {
  int run = 1;
  while (!C::kSigned && run < kQuads && 2 * run * 2 * 127 * C::kMost <= 32767) run *= 2;
  return run;
}

static inline __m256i add_pairs(__m256i sum, __m256i pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

// The four registers of two rows by sixteen tokens.
struct DotBlock {
  __m256i a_lo, a_hi, b_lo, b_hi;
};

template <typename C, int kQuads>
static inline void dot_rows(I start, const uint8_t* w, const int8_t* x, I* out) {
  DotBlock sum{start.lo, start.hi, start.lo, start.hi};
#ifdef __AVXVNNI__
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    const __m256i lo = load256(x + 64 * j), hi = load256(x + 64 * j + 32);
    const __m256i a = broadcast_quad(w + kPanelQuad * j), b = broadcast_quad(w + kPanelRow + kPanelQuad * j);
    sum = {_mm256_dpbusd_avx_epi32(sum.a_lo, a, lo), _mm256_dpbusd_avx_epi32(sum.a_hi, a, hi),
           _mm256_dpbusd_avx_epi32(sum.b_lo, b, lo), _mm256_dpbusd_avx_epi32(sum.b_hi, b, hi)};
  }
#else
  constexpr int kRun = dot_run<C, kQuads>();
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; j += kRun) {
    const __m256i zero = _mm256_setzero_si256();
    DotBlock pairs{zero, zero, zero, zero};
    // Unrolled, compilers do all products first and keep them in memory.
#pragma GCC unroll 4
    for (int i = j; i < j + kRun; ++i) {
      const __m256i lo = load256(x + 64 * i), hi = load256(x + 64 * i + 32);
      const __m256i a = broadcast_quad(w + kPanelQuad * i), b = broadcast_quad(w + kPanelRow + kPanelQuad * i);
      pairs = {_mm256_add_epi16(pairs.a_lo, dot_pairs<C>(a, lo)), _mm256_add_epi16(pairs.a_hi, dot_pairs<C>(a, hi)),
               _mm256_add_epi16(pairs.b_lo, dot_pairs<C>(b, lo)), _mm256_add_epi16(pairs.b_hi, dot_pairs<C>(b, hi))};
    }
    sum = {add_pairs(sum.a_lo, pairs.a_lo), add_pairs(sum.a_hi, pairs.a_hi), add_pairs(sum.b_lo, pairs.b_lo),
           add_pairs(sum.b_hi, pairs.b_hi)};
  }
#endif
  out[0] = {sum.a_lo, sum.a_hi};
  out[1] = {sum.b_lo, sum.b_hi};
}

}  // namespace stoke::kernels::STOKE_ISA
