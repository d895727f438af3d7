// Products of quantised weights with one token or a few: kLanes rows side by side, one a lane.
//
// Sixteen bytes of each row are turned so that a vector holds the same dword of every row (isa/lanes_*.h); codes are
// taken out of the bits there, once for all tokens; then a quad of activations, the same for all rows, multiplies a
// vector. A group's integer sums need no adding across lanes, and end where the rows' scales are. Order of summation:
// kernels.h.
//
// What limits one token is how memory is asked. The rows at hand are cut into kStrips strips, in which rows follow one
// another, and kStripRows of each strip are read together: few long streams for the prefetcher. (Sixteen rows as four
// of each of four strips: 10 % less.) Rows longer than a page are streams enough themselves.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/generic/prefetch.h"
#include "kernels/generic/row_quads.h"
#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// Activations of one token (kStep 1) or of one tile of tokens (kStep 16): see ActView. The loop over tokens is not
// unrolled: their sums rest in the first-level cache.
template <int kStepOf>
struct LaneActs {
  static constexpr int64_t kStep = kStepOf;
  int64_t count;
  const int8_t* q;
  const float* d;
  const float* s32;
  const float* s16;
  const int32_t* sum16;
  // What sums of a group start from: less kBias times the sum of its activations. kHalves: groups a block.
  template <int kBias, int kHalves>
  void starts(int64_t group, int32_t* out) const {
    const int32_t* sum = sum16 + group * (2 / kHalves) * kStep;
    if constexpr (kBias == 0) {
    } else if constexpr (kStep == 1) {
      out[0] = -kBias * (sum[0] + (kHalves == 1 ? sum[1] : 0));
    } else {
      const I all = kHalves == 1 ? iadd(iload(sum), iload(sum + kStep)) : iload(sum);
      istore(out, isub(iset1(0), times<kBias>(all)));
    }
  }
  int64_t tokens() const { return kStep == 1 ? 1 : count; }
  const int8_t* quads(int64_t quad, int64_t t) const { return q + (quad * kStep + t) * 4; }
};

template <typename Block>
using LaneCodes = decltype(codes_for<kRowsTake, BlockTraits<Block>>());

// kLanes rows: codes of 32 elements, scales of a block.
template <typename Block>
struct LaneTile {
  using T = BlockTraits<Block>;
  Quads<Block> quads;
  W w[8];
  WF d[T::kElems / T::kGroup], m[T::kMin ? T::kElems / T::kGroup : 1];
};

template <typename Block, int S, int... J>
[[gnu::always_inline]] static inline void take_quads(std::integer_sequence<int, J...>, const Quads<Block>& quads,
                                                     W* w) {
  // A vector of signed codes where only unsigned ones are taken: q + 128.
  constexpr bool kFlip = BlockTraits<Block>::kSigned && !LaneCodes<Block>::kSigned;
  auto take = [](W v) { return kFlip ? w_xor(v, w_set1(static_cast<int32_t>(0x80808080u))) : v; };
  ((w[J] = take(quads.template quad<S, J>())), ...);
}

// An instruction set that adds products in more than one step brings a dot_quads of its own (STOKE_DOT_QUADS).
#ifndef STOKE_DOT_QUADS
// sums[k][t] += the sum over kQuads quads of the codes of tile k's rows times those of token t's activations; quad j of
// these lies at x + j * step + 4 * t. One token has two chains of sums: an instruction takes five cycles.
template <typename Code, int kQuads, int kTiles, int kTokens>
[[gnu::always_inline]] static inline void dot_quads(const W* const (&w)[kTiles], const int8_t* x, int64_t step,
                                                    W (&sums)[kTiles][kTokens]) {
  constexpr bool kOne = kTiles * kTokens == 1;
  W other = w_zero();
#pragma GCC unroll 8
  for (int j = 0; j < kQuads; ++j) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const auto quad = broadcast_quad(x + j * step + 4 * t);
#pragma GCC unroll 2
      for (int k = 0; k < kTiles; ++k) {
        W& sum = kOne && j % 2 != 0 ? other : sums[k][t];
        sum = w_dot(sum, w[k][j], quad);
      }
    }
  }
  if (kOne) sums[0][0] = w_add(sums[0][0], other);
}
#endif

// Adds group `group` of kTokens tokens from t on, the g-th of the block. acc: (kTiles, kStep).
template <typename Block, int kTiles, int kTokens, typename Acts>
[[gnu::always_inline]] static inline void add_group(const LaneTile<Block>* tiles, int g, const Acts& x, int64_t group,
                                                    int64_t t, const int32_t* start, WF* acc) {
  using T = BlockTraits<Block>;
  constexpr int kHalves = 32 / T::kGroup, kQuads = T::kGroup / 4;
  W dots[kTiles][kTokens];
  const W* w[kTiles];
#pragma GCC unroll 2
  for (int k = 0; k < kTiles; ++k) {
    w[k] = tiles[k].w + g % kHalves * kQuads;
#pragma GCC unroll 8
    for (int i = 0; i < kTokens; ++i) dots[k][i] = LaneCodes<Block>::kBias == 0 ? w_zero() : w_set1(start[t + i]);
  }
  dot_quads<LaneCodes<Block>, kQuads>(w, x.quads(group * kQuads, t), Acts::kStep * 4, dots);
#pragma GCC unroll 8
  for (int i = 0; i < kTokens; ++i) {
    const WF dx = wf_set1(x.d[group / kHalves * Acts::kStep + t + i]);
    const float* s = kHalves == 1 ? x.s32 : x.s16;
#pragma GCC unroll 2
    for (int k = 0; k < kTiles; ++k) {
      WF& sum = acc[k * Acts::kStep + t + i];
      sum = wf_fma(wf_mul(tiles[k].d[g], dx), wf_from(dots[k][i]), sum);
      if constexpr (T::kMin) sum = wf_fma(tiles[k].m[g], wf_set1(s[group * Acts::kStep + t + i]), sum);
    }
  }
}

// Adds elements [32 S, + 32) of block `block`.
template <typename Block, int kTiles, int S, typename Acts>
[[gnu::always_inline]] static inline void add_lane_sub(LaneTile<Block>* tiles, const auto& rows, const Acts& x,
                                                       int64_t block, WF* acc) {
  using T = BlockTraits<Block>;
  constexpr int kHalves = 32 / T::kGroup;
#pragma GCC unroll 2
  for (int k = 0; k < kTiles; ++k) {
    tiles[k].quads.template begin<S>(rows.tile(k));
    take_quads<Block, S>(std::make_integer_sequence<int, 8>(), tiles[k].quads, tiles[k].w);
  }
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
    const int64_t group = (block * (T::kElems / 32) + S) * kHalves + h;
    const int g = S * kHalves + h;
    int32_t start[Acts::kStep];
    x.template starts<LaneCodes<Block>::kBias, kHalves>(group, start);
    int64_t t = 0;
    if constexpr (Acts::kStep > 1) {
      for (; t + kTogether <= x.tokens(); t += kTogether) {
        add_group<Block, kTiles, kTogether>(tiles, g, x, group, t, start, acc);
      }
    }
    for (; t < x.tokens(); ++t) add_group<Block, kTiles, 1>(tiles, g, x, group, t, start, acc);
  }
}

template <typename Block, int kTiles, typename Acts, int... S>
[[gnu::always_inline]] static inline void add_lane_subs(std::integer_sequence<int, S...>, LaneTile<Block>* tiles,
                                                        const auto& rows, const Acts& x, int64_t block, WF* acc,
                                                        const auto& ahead) {
  constexpr size_t kPart = sizeof(Block) / sizeof...(S);
  const size_t at = static_cast<size_t>(block) * sizeof(Block);
  constexpr std::integral_constant<size_t, kPart> kBytes;
  ((ahead(at + S * kPart, kBytes), add_lane_sub<Block, kTiles, S>(tiles, rows, x, block, acc)), ...);
}

// Longer strips are no better.
static constexpr int64_t kRegionBytes = int64_t{4} << 20;
static constexpr size_t kLongRow = 4096;     // bytes
static constexpr size_t kAheadInRow = 1024;  // bytes

// kTiles times kLanes whole rows. ahead(at, bytes): called for bytes [at, at + bytes) of the rows ascending, to ask for
// what comes later; `bytes` is a constant, so that its loop is none. acc: (kTiles, kStep).
template <typename Block, int kTiles, typename Acts>
[[gnu::always_inline]] static inline void lane_rows(const auto& rows, int64_t cols, const Acts& x, WF* acc,
                                                    const auto& ahead) {
  using T = BlockTraits<Block>;
  for (int64_t i = 0; i < kTiles * Acts::kStep; ++i) acc[i] = wf_zero();
  for (int64_t i = 0; i < cols / T::kElems; ++i) {
    const auto at = rows.at(static_cast<size_t>(i) * sizeof(Block));
    LaneTile<Block> tiles[kTiles];
#pragma GCC unroll 2
    for (int k = 0; k < kTiles; ++k) {
      lane_scales(static_cast<const Block*>(nullptr), at.tile(k), tiles[k].d, tiles[k].m);
    }
    add_lane_subs<Block, kTiles>(std::make_integer_sequence<int, T::kElems / 32>(), tiles, at, x, i, acc, ahead);
  }
}

// Up to kLanes rows, wherever they lie.
template <typename Block, typename Acts>
static inline void some_lanes(const std::byte* const* rows, int count, int64_t cols, const Acts& x, WF* acc) {
  const std::byte* all[kLanes];
  for (int r = 0; r < kLanes; ++r) all[r] = rows[r < count ? r : count - 1];
  lane_rows<Block, 1>(Scattered{all, 0}, cols, x, acc, [](size_t, auto) {});
}

static inline void store_some(const WF* acc, int64_t tokens, int count, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < tokens; ++t) {
    float out[kLanes];
    wf_store(out, acc[t]);
    std::memcpy(y + t * y_stride, out, sizeof(float) * static_cast<size_t>(count));
  }
}

// Rows that follow one another, asked for some way ahead in each.
template <typename Block, int kTiles>
static inline void long_lanes(const uint8_t* rows, size_t stride, int64_t cols, const auto& x, WF* acc) {
  constexpr size_t kRows = kTiles * kLanes;
  lane_rows<Block, kTiles>(Strips{rows, stride, kTiles * kStripRows * stride}, cols, x, acc,
                           [&](size_t at, auto bytes) {
                             const size_t ahead = at + kAheadInRow;
                             // Past a row's end begins the row kRows further on.
                             const uint8_t* p = rows + ahead + (ahead >= stride ? (kRows - 1) * stride : 0);
                             for (size_t r = 0; r < kRows; ++r) prefetch_all<bytes()>(p + r * stride);
                           });
}

// kTiles * kStripRows rows of each strip; asks for those that follow in each, in the order they lie in memory.
template <typename Block, int kTiles>
static inline void short_lanes(const Strips& rows, int64_t cols, const auto& x, WF* acc) {
  constexpr size_t kRows = kTiles * kStripRows;
  lane_rows<Block, kTiles>(rows, cols, x, acc, [&](size_t at, auto bytes) {
    const uint8_t* next = rows.base + kRows * (rows.stride + at);
    for (size_t q = 0; q < kStrips; ++q) prefetch_all<kRows * bytes(), (kTiles > 1)>(next + q * rows.strip);
  });
}

// How many of `rows` rows, both multiples of step, are read as strips: offsets are 32 bits. Strips whole pages apart
// would share the sets of the first-level cache.
static inline int64_t strip_rows(int64_t rows, int64_t step, size_t stride) {
  constexpr size_t kPage = 4096;
  constexpr size_t kApart = 256;
  const int64_t most = kRegionBytes / static_cast<int64_t>(stride) / step * step;
  int64_t taken = rows < most ? rows : most;
  for (; taken > step; taken -= step) {
    const size_t apart = static_cast<size_t>(taken / kStrips) * stride % kPage;
    if (apart >= kApart && apart <= kPage - kApart) break;
  }
  return taken;
}

// acc: (kTiles, kStep). kTiles * kStripRows rows follow one another; the next ones are `apart` rows on.
template <int kTiles, int64_t kStep>
static inline void store_strips(const WF* acc, int64_t tokens, int64_t apart, float* y, int64_t y_stride) {
  for (int k = 0; k < kTiles; ++k) {
    for (int64_t t = 0; t < tokens; ++t) {
      float out[kLanes];
      wf_store(out, acc[k * kStep + t]);
      float* to = y + t * y_stride + k * kStripRows;
      for (int q = 0; q < kStrips; ++q) std::memcpy(to + q * apart, out + kStripRows * q, kStripRows * sizeof(float));
    }
  }
}

// The first of `rows` rows, a multiple of kTiles * kLanes; returns how many.
template <typename Block, int kTiles, typename Acts>
static int64_t region_lanes(const MatmulArgs& a, int64_t row, int64_t rows, const Acts& x) {
  const size_t stride = a.w.row_bytes;
  const auto* data = reinterpret_cast<const uint8_t*>(a.w.data) + static_cast<size_t>(row) * stride;
  constexpr int64_t kRows = kTiles * kStripRows;
  WF acc[kTiles * Acts::kStep];
  if (stride >= kLongRow) {
    long_lanes<Block, kTiles>(data, stride, a.w.cols, x, acc);
    store_strips<kTiles, Acts::kStep>(acc, x.tokens(), kRows, a.y + row, a.y_stride);
    return kTiles * kLanes;
  }
  const int64_t taken = strip_rows(rows, kTiles * kLanes, stride), strip_size = taken / kStrips;
  for (int64_t i = 0; i < strip_size; i += kRows) {
    const Strips strips{data + static_cast<size_t>(i) * stride, stride, static_cast<size_t>(strip_size) * stride};
    short_lanes<Block, kTiles>(strips, a.w.cols, x, acc);
    store_strips<kTiles, Acts::kStep>(acc, x.tokens(), strip_size, a.y + row + i, a.y_stride);
  }
  return taken;
}

template <typename Block, typename Acts>
static void matmul_lanes(const MatmulArgs& a, const Acts& x) {
  constexpr int kTiles = Acts::kStep == 1 ? 1 : kFewTiles;
  const int64_t rows = a.w.rows.size(), whole = rows / kLanes * kLanes,
                tiled = rows / (kTiles * kLanes) * kTiles * kLanes;
  int64_t row = 0;
  while (row < tiled) row += region_lanes<Block, kTiles>(a, row, tiled - row, x);
  while (row < whole) row += region_lanes<Block, 1>(a, row, whole - row, x);
  if (whole == rows) return;
  const std::byte* rest[kLanes] = {};
  const int count = static_cast<int>(rows - whole);
  for (int r = 0; r < count; ++r) rest[r] = a.w.data + static_cast<size_t>(whole + r) * a.w.row_bytes;
  WF acc[Acts::kStep];
  some_lanes<Block>(rest, count, a.w.cols, x, acc);
  store_some(acc, x.tokens(), count, a.y + whole, a.y_stride);
}

template <int kStep>
static inline LaneActs<kStep> lane_acts(const ActView& x) {
  return {x.tokens, x.q, x.d, x.s32, x.s16, x.sum16};
}

}  // namespace stoke::kernels::STOKE_ISA
