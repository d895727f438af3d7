// A few tokens, AVX-512 VNNI: sixteen rows a lane each, the tokens' sums side by side in registers, no panels.
//
// A group's weights of sixteen rows are turned so that a vector holds one quad of each row: eight vectors a block of
// 32, used by every token, whose quad comes from the activations by a broadcasting load. For sixteen blocks that is
// about 20 cycles of turning (nibbles; 30 for other types) and 6 a token, with nothing stored between; memory brings
// them in 50. Order of summation: kernels.h.
#pragma once

#include <immintrin.h>

#include "kernels/isa/readers_avx512.h"

namespace stoke::kernels::STOKE_ISA {

// Where tiles of sixteen tokens have a unit of their own, panels are up to a fifth faster from nine tokens on.
#ifdef STOKE_SIGNED_PANELS
static constexpr int64_t kFewTokens = 8;
#else
static constexpr int64_t kFewTokens = kTokenTile;  // sums in 16 registers, weights in 8
#endif

// Turns 4 x 4 dwords in each 128-bit part: out[j] holds dword j of each input.
static inline void turn4(const __m512i* in, __m512i* out) {
  const __m512i a = _mm512_unpacklo_epi32(in[0], in[1]), b = _mm512_unpackhi_epi32(in[0], in[1]);
  const __m512i c = _mm512_unpacklo_epi32(in[2], in[3]), d = _mm512_unpackhi_epi32(in[2], in[3]);
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}

// Types with 16 bytes of nibbles for each 32 elements.
template <typename Block>
static constexpr bool kPackedNibbles = requires(Bytes v) {
  Reader<Block>::nibbles(v);
};

// Four rows' 16 bytes, rows r, r + 4, r + 8 and r + 12.
static inline __m512i four_rows(const uint8_t* base, size_t stride) {
  auto part = [&](size_t r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(base + r * stride)); };
  const __m512i a = _mm512_castsi128_si512(part(0));
  const __m512i b = _mm512_mask_broadcast_i32x4(a, 0x00f0, part(4));
  const __m512i c = _mm512_mask_broadcast_i32x4(b, 0x0f00, part(8));
  return _mm512_mask_broadcast_i32x4(c, 0xf000, part(12));
}

// Elements [32 S, 32 S + 32) of sixteen rows as unsigned bytes: w[j] holds quad j, one row a lane. Nibbles are turned
// while they are packed, which halves the shuffles.
template <typename Block, int S>
static inline void quads_of_rows(const uint8_t* base, size_t stride, Bytes* w) {
  if constexpr (kPackedNibbles<Block>) {
    const uint8_t* packed = base + offsetof(Block, qs) + 16 * S;
    __m512i rows[4], quads[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; ++r) rows[r] = four_rows(packed + r * stride, stride);
    turn4(rows, quads);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      w[j] = Reader<Block>::nibbles(_mm512_and_si512(quads[j], _mm512_set1_epi8(15)));
      w[j + 4] = Reader<Block>::nibbles(_mm512_and_si512(_mm512_srli_epi16(quads[j], 4), _mm512_set1_epi8(15)));
    }
  } else {
    __m512i low[4], high[4];
    auto half = [&](size_t r0, __m512i* out) {
      __m512i pairs[4];
#pragma GCC unroll 4
      for (size_t r = 0; r < 4; ++r) {
        pairs[r] = Reader<Block>::template sub<S>(*reinterpret_cast<const Block*>(base + (r0 + r) * stride),
                                                  *reinterpret_cast<const Block*>(base + (r0 + r + 4) * stride));
      }
      turn4(pairs, out);
    };
    half(0, low);
    half(8, high);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const HalfSums both_quads = halves(low[j], high[j]);
      w[j] = both_quads.low;
      w[j + 4] = both_quads.high;
    }
  }
}

// Activations of one tile, see ActView.
struct FewActs {
  const int8_t* q;
  const float* d;
  const float* s32;
  const float* s16;
  const int32_t* sum16;
};

// What offset bytes add to the sums of a group, of sixteen tokens, taken back from the start.
template <typename Block>
static inline void starts(const FewActs& x, int64_t b, int32_t (*start)[16]) {
  const __m512i offset = _mm512_set1_epi32(-Reader<Block>::kOffset);
  const __m512i low = iload(x.sum16 + 2 * b * kTokenTile), high = iload(x.sum16 + (2 * b + 1) * kTokenTile);
  if constexpr (BlockTraits<Block>::kGroup == 32) {
    istore(start[0], _mm512_mullo_epi32(_mm512_add_epi32(low, high), offset));
  } else {
    istore(start[0], _mm512_mullo_epi32(low, offset));
    istore(start[1], _mm512_mullo_epi32(high, offset));
  }
}

template <typename Block, int kTokens, int S>
static inline void add_few_sub(const uint8_t* base, size_t stride, const FewActs& x, int64_t block, const V* d,
                               const V* m, V* acc) {
  using T = BlockTraits<Block>;
  constexpr int kHalves = 32 / T::kGroup, kQuads = T::kGroup / 4;
  const int64_t b = block * (T::kElems / 32) + S;
  alignas(64) int32_t start[2][16];
  if constexpr (Reader<Block>::kOffset != 0) starts<Block>(x, b, start);
  Bytes w[8];
  quads_of_rows<Block, S>(base, stride, w);
  const int8_t* q = x.q + b * kActBlock * kTokenTile;
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const V dx = vset1(x.d[b * kTokenTile + t]);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      I dot = Reader<Block>::kOffset != 0 ? iset1(start[h][t]) : _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int j = h * kQuads; j < (h + 1) * kQuads; ++j) {
        int32_t quad;
        std::memcpy(&quad, q + (j * kTokenTile + t) * 4, sizeof quad);
        dot = _mm512_dpbusd_epi32(dot, w[j], _mm512_set1_epi32(quad));
      }
      acc[t] = vfma(vmul(d[S * kHalves + h], dx), vfromi(dot), acc[t]);
      if constexpr (T::kMin) {
        const float s = kHalves == 1 ? x.s32[b * kTokenTile + t] : x.s16[(2 * b + h) * kTokenTile + t];
        acc[t] = vfma(m[S * kHalves + h], vset1(s), acc[t]);
      }
    }
  }
}

template <typename Block, int kTokens, int... S>
static inline void add_few_subs(std::integer_sequence<int, S...>, const uint8_t* base, size_t stride, const FewActs& x,
                                int64_t block, const V* d, const V* m, V* acc) {
  (add_few_sub<Block, kTokens, S>(base, stride, x, block, d, m, acc), ...);
}

// Sixteen whole rows, kTokens tokens.
template <typename Block, int kTokens>
static void few_tile(const uint8_t* rows, size_t stride, int64_t cols, const FewActs& x, V* out) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  const __m512i offsets = row_offsets(stride);
  V acc[kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t i = 0; i < cols / T::kElems; ++i) {
    const uint8_t* base = rows + static_cast<size_t>(i) * sizeof(Block);
    // The next sixteen rows, in the order they lie in memory.
    prefetch<16 * sizeof(Block)>(rows + 16 * stride + static_cast<size_t>(i) * 16 * sizeof(Block));
    V d[kGroups], m[T::kMin ? kGroups : 1];
    Reader<Block>::scales(Lanes{base, offsets}, d, m);
    add_few_subs<Block, kTokens>(std::make_integer_sequence<int, T::kElems / 32>(), base, stride, x, i, d, m, acc);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) out[t] = acc[t];
}

// Requires: whole tiles of sixteen rows, 2 to kFewTokens tokens.
template <typename Block>
static void few_avx512(const MatmulArgs& a) {
  const FewActs x{a.x.q, a.x.d, a.x.s32, a.x.s16, a.x.sum16};
  const auto* data = reinterpret_cast<const uint8_t*>(a.w.data);
  for (int64_t row = 0; row < a.w.rows.size(); row += kRowTile) {
    const uint8_t* rows = data + static_cast<size_t>(row) * a.w.row_bytes;
    V out[kFewTokens];
    if (a.x.tokens <= 4) {
      few_tile<Block, 4>(rows, a.w.row_bytes, a.w.cols, x, out);
    } else if (a.x.tokens <= 8) {
      few_tile<Block, 8>(rows, a.w.row_bytes, a.w.cols, x, out);
    } else if constexpr (kFewTokens > 8) {
      few_tile<Block, kFewTokens>(rows, a.w.row_bytes, a.w.cols, x, out);
    }
    for (int64_t t = 0; t < a.x.tokens; ++t) vstore(a.y + t * a.y_stride + row, out[t]);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
