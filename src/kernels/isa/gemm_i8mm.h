// The tile product with ARM's 8-bit matrix products (smmla): two rows times two tokens, eight codes deep, at once.
//
// A panel's quads lie in pairs, (4 pairs, 16 rows, 8 codes) for 32 elements, so that sixteen bytes are two rows.
// Activations keep the layout of ActView, whose quads for the same tokens are zipped into pairs on the way. Sums are
// (2 rows, 2 tokens) a register: eight rows by four tokens take eight registers for integers and eight for floats, with
// four of rows and two of tokens beside them. Each sum sees the operations of gemm.h in the same order.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/generic/row_lanes.h"

namespace stoke::kernels::STOKE_ISA {

// Eight rows' codes of 32 elements.
static inline void store_pairs(uint8_t* out, const W* w) {
#pragma GCC unroll 4
  for (int pair = 0; pair < 4; ++pair) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const uint32x4_t a = w[2 * pair].h[i], b = w[2 * pair + 1].h[i];
      vst1q_u8(out + pair * 128 + i * 32, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
      vst1q_u8(out + pair * 128 + i * 32 + 16, vreinterpretq_u8_u32(vzip2q_u32(a, b)));
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_STORE_QUADS store_pairs
#include "kernels/generic/pack_lanes.h"

namespace stoke::kernels::STOKE_ISA {

constexpr int kSquareRows = 8, kSquareTokens = 4;
constexpr int kRowPairs = kSquareRows / 2, kTokenPairs = kSquareTokens / 2;

// (row pair, token pair) of [r0t0, r0t1, r1t0, r1t1].
struct SquareSums {
  float32x4_t s[kRowPairs][kTokenPairs];
};
struct SquareDots {
  int32x4_t s[kRowPairs][kTokenPairs];
};

// Four tokens' numbers, the same for both rows of a pair: [t0, t1, t0, t1] and [t2, t3, t2, t3].
struct TokenPairs {
  float32x4_t s[kTokenPairs];
};
static inline TokenPairs token_pairs(const float* p) {
  const float64x2_t four = vreinterpretq_f64_f32(vld1q_f32(p));
  return {{vreinterpretq_f32_f64(vdupq_laneq_f64(four, 0)), vreinterpretq_f32_f64(vdupq_laneq_f64(four, 1))}};
}

// Eight rows' numbers, each twice: [r0, r0, r1, r1] and so on.
struct RowPairs {
  float32x4_t s[kRowPairs];
};
static inline RowPairs row_pairs(const float* p) {
  const float32x4_t low = vld1q_f32(p), high = vld1q_f32(p + 4);
  return {{vzip1q_f32(low, low), vzip2q_f32(low, low), vzip1q_f32(high, high), vzip2q_f32(high, high)}};
}

// The square of eight rows of accumulators from token t0 on.
static inline SquareSums load_square(const float (*acc)[16], int t0) {
  SquareSums sums;
#pragma GCC unroll 4
  for (int p = 0; p < kRowPairs; ++p) {
    const float64x2_t a = vreinterpretq_f64_f32(vld1q_f32(acc[2 * p] + t0));
    const float64x2_t b = vreinterpretq_f64_f32(vld1q_f32(acc[2 * p + 1] + t0));
    sums.s[p][0] = vreinterpretq_f32_f64(vtrn1q_f64(a, b));
    sums.s[p][1] = vreinterpretq_f32_f64(vtrn2q_f64(a, b));
  }
  return sums;
}
static inline void store_square(const SquareSums& sums, float (*acc)[16], int t0) {
#pragma GCC unroll 4
  for (int p = 0; p < kRowPairs; ++p) {
    const float64x2_t a = vreinterpretq_f64_f32(sums.s[p][0]), b = vreinterpretq_f64_f32(sums.s[p][1]);
    vst1q_f32(acc[2 * p] + t0, vreinterpretq_f32_f64(vtrn1q_f64(a, b)));
    vst1q_f32(acc[2 * p + 1] + t0, vreinterpretq_f32_f64(vtrn2q_f64(a, b)));
  }
}

// What the four tokens' sums of a group (index in groups) start from: less kBias times the sum of its activations.
template <typename Kind>
static inline SquareDots first_dots(const TileSource& x, int64_t group, int t0) {
  SquareDots dots;
  int32x4_t start = vdupq_n_s32(0);
  if constexpr (Kind::kBias != 0) {
    constexpr int kHalves = 32 / Kind::kGroup;
    const int32_t* sum = x.sum16 + group * (2 / kHalves) * kTokenTile + t0;
    start = vld1q_s32(sum);
    if constexpr (kHalves == 1) start = vaddq_s32(start, vld1q_s32(sum + kTokenTile));
    start = vmulq_n_s32(start, -Kind::kBias);
  }
  const int64x2_t four = vreinterpretq_s64_s32(start);
#pragma GCC unroll 4
  for (int p = 0; p < kRowPairs; ++p) {
    dots.s[p][0] = vreinterpretq_s32_s64(vdupq_laneq_s64(four, 0));
    dots.s[p][1] = vreinterpretq_s32_s64(vdupq_laneq_s64(four, 1));
  }
  return dots;
}

// One pair of quads. w: eight rows of it. x: its first quad, at the first token.
static inline void add_pair(const uint8_t* w, const int8_t* x, SquareDots& dots) {
  const int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(x)), b = vreinterpretq_s32_s8(vld1q_s8(x + 64));
  const int8x16_t tokens[kTokenPairs] = {vreinterpretq_s8_s32(vzip1q_s32(a, b)),
                                         vreinterpretq_s8_s32(vzip2q_s32(a, b))};
#pragma GCC unroll 4
  for (int p = 0; p < kRowPairs; ++p) {
    const int8x16_t rows = vreinterpretq_s8_u8(vld1q_u8(w + 16 * p));
    dots.s[p][0] = vmmlaq_s32(dots.s[p][0], rows, tokens[0]);
    dots.s[p][1] = vmmlaq_s32(dots.s[p][1], rows, tokens[1]);
  }
}

template <typename Kind>
static inline void scale_square(const Panel& panel, const TileSource& x, int64_t group, int r0, int t0,
                                const SquareDots& dots, SquareSums& sums) {
  constexpr int kHalves = 32 / Kind::kGroup;
  const RowPairs d = row_pairs(panel.d + group * kRowTile + r0);
  const TokenPairs dx = token_pairs(x.d + group / kHalves * kTokenTile + t0);
#pragma GCC unroll 4
  for (int p = 0; p < kRowPairs; ++p) {
#pragma GCC unroll 2
    for (int t = 0; t < kTokenPairs; ++t) {
      sums.s[p][t] = vfmaq_f32(sums.s[p][t], vmulq_f32(d.s[p], dx.s[t]), vcvtq_f32_s32(dots.s[p][t]));
    }
  }
  if constexpr (Kind::kMin) {
    const RowPairs m = row_pairs(panel.m + group * kRowTile + r0);
    const TokenPairs s = token_pairs((kHalves == 1 ? x.s32 : x.s16) + group * kTokenTile + t0);
#pragma GCC unroll 4
    for (int p = 0; p < kRowPairs; ++p) {
#pragma GCC unroll 2
      for (int t = 0; t < kTokenPairs; ++t) sums.s[p][t] = vfmaq_f32(sums.s[p][t], m.s[p], s.s[t]);
    }
  }
}

template <typename Kind>
static inline void add_square(const Panel& panel, const TileSource& x, int r0, int t0, float (*acc)[16]) {
  constexpr int kHalves = 32 / Kind::kGroup, kPairs = Kind::kGroup / 8;
  SquareSums sums = load_square(acc + r0, t0);
  for (int64_t group = 0; group < x.blocks * kHalves; ++group) {
    SquareDots dots = first_dots<Kind>(x, group, t0);
    const uint8_t* w = panel.q + group * kPairs * 128 + r0 * kPanelRow;
    const int8_t* q = x.q + group * kPairs * 128 + t0 * 4;
#pragma GCC unroll 4
    for (int pair = 0; pair < kPairs; ++pair) add_pair(w + pair * 128, q + pair * 128, dots);
    scale_square<Kind>(panel, x, group, r0, t0, dots, sums);
  }
  store_square(sums, acc + r0, t0);
}

template <typename Kind>
[[gnu::noinline]] static void add_tile_i8mm(const Panel& panel, const TileSource& x, float (*acc)[16]) {
  for (int r0 = 0; r0 < kRowTile; r0 += kSquareRows) {
    for (int t0 = 0; t0 < kTokenTile; t0 += kSquareTokens) add_square<Kind>(panel, x, r0, t0, acc);
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_ADD_TILE add_tile_i8mm
