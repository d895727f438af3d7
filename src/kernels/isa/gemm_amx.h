// The tile product on AMX: sixteen rows times sixteen tokens times one group of 16 or 32 in a single instruction.
//
// A tile: panel bytes, (16 rows, group). B tile: quad-interleaved activations, (group/4, 16 tokens, 4), the layout that
// ActView already has. C tile: exact integer sums, (16 rows, 16 tokens). C goes through memory to the vector unit,
// where scales are applied in the order of kernels.h: convert, multiply, FMA, a row each. That is 48 vector operations
// a tile on two ports, 24 cycles; with 43 of the tile unit's for loads, product and store, which do not overlap with
// them.
#pragma once

#include <immintrin.h>

#include "kernels/isa/pack_avx512.h"
#include "kernels/isa/tiles.h"

namespace stoke::kernels::STOKE_ISA {

// Integer sums of one group into `out`. The processor renames tile registers, so two steps can be under way in one.
template <int kGroup>
static inline void tile_dot(const Panel& panel, const TileSource& x, int64_t group, int32_t (*out)[16]) {
  constexpr int kHalves = 32 / kGroup;
  const int64_t b = group / kHalves, h = group % kHalves;
  _tile_loadd(2, panel.q + b * 512 + h * 16, 32);
  _tile_loadd(3, x.q + b * 512 + h * 256, 64);
  _tile_zero(0);
  _tile_dpbssd(0, 2, 3);
  _tile_stored(0, out, 64);
}

template <int kGroup, bool kMin>
static inline void scale_tile(const Panel& panel, const TileSource& x, int64_t group, const int32_t (*dots)[16],
                              V* sum) {
  constexpr int kHalves = 32 / kGroup;
  const V dx = vload(x.d + group / kHalves * kTokenTile);
  const V s = vload(kGroup == 32 ? x.s32 + group * kTokenTile : x.s16 + group * kTokenTile);
  const float* d = panel.d + group * kRowTile;
  const float* m = panel.m + group * kRowTile;
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    sum[r] = vfma(vmul(vset1(d[r]), dx), vfromi(iload(dots[r])), sum[r]);
    if constexpr (kMin) sum[r] = vfma(vset1(m[r]), s, sum[r]);
  }
}

template <typename Kind>
static void add_tile_amx(const Panel& panel, const TileSource& x, float (*acc)[16]) {
  constexpr int kGroup = Kind::kGroup;
  alignas(64) int32_t dots[4][16][16];
  const int64_t groups = x.blocks * 32 / kGroup;
  V sum[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) sum[r] = vload(acc[r]);
  before_tile_loads();
  // Two steps ahead: stores of a tile must have left for the cache before the vector unit reads them.
  tile_dot<kGroup>(panel, x, 0, dots[0]);
  if (groups > 1) tile_dot<kGroup>(panel, x, 1, dots[1]);
  for (int64_t g = 0; g < groups; ++g) {
    if (g + 2 < groups) tile_dot<kGroup>(panel, x, g + 2, dots[(g + 2) & 3]);
    scale_tile<kGroup, Kind::kMin>(panel, x, g, dots[g & 3], sum);
  }
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) vstore(acc[r], sum[r]);
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_ADD_TILE add_tile_amx
#define STOKE_GEMM_SESSION(group) const TileSession tile_session(group)
