// The integer dot product of quads with AVX-512 VNNI. See dot_portable.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

#ifdef STOKE_SIGNED_PANELS
static constexpr DotTakes kDotTakes = DotTakes::kSigned;
static constexpr int kPanelRow = 32, kPanelQuad = 4;
#else
static constexpr DotTakes kDotTakes = DotTakes::kUnsigned;
static constexpr int kPanelRow = 4, kPanelQuad = 64;
#endif
static constexpr int kDotRows = 8;

static inline __m512i broadcast_quad(const void* p) {
  int32_t quad;
  std::memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// Eight sums side by side: the instruction takes five cycles, and two start in each.
template <typename C, int kQuads>
static inline void dot_rows(I start, const uint8_t* w, const int8_t* x, I* out) {
#pragma GCC unroll 8
  for (int r = 0; r < kDotRows; ++r) out[r] = start;
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
    const I tokens = _mm512_loadu_si512(x + 64 * j);
#pragma GCC unroll 8
    for (int r = 0; r < kDotRows; ++r) {
      out[r] = _mm512_dpbusd_epi32(out[r], broadcast_quad(w + kPanelRow * r + kPanelQuad * j), tokens);
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA
