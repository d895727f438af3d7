// Products of quantised weights with a batch of tokens.
//
// Sixteen rows at a time are unpacked into scratch as a panel (bytes by block, scales by group), once for all tokens;
// then each tile of 16 tokens (the lanes) runs through the panel's rows. Order of summation: kernels.h.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// Sixteen unpacked rows. Groups are 16 or 32 long.
struct Panel {
  uint8_t* q;  // (k/32, 16 rows, 32), kWeightXor applied
  float* d;    // (groups, 16 rows)
  float* m;    // (groups, 16 rows); types with a minimum only
};

static inline Panel carve_panel(void* scratch, int64_t k) {
  Panel p;
  p.q = static_cast<uint8_t*>(scratch);
  p.d = reinterpret_cast<float*>(p.q + kRowTile * k);
  p.m = p.d + k / 16 * kRowTile;
  return p;
}

// Unpacks `count` (1..16) rows; the rest of the panel repeats the last row, so that it always holds valid numbers.
template <typename Block>
static void pack_panel(const std::byte* rows, size_t row_bytes, int count, int64_t k, const Panel& panel) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  constexpr int kActBlocks = T::kElems / 32;
  int8_t q[T::kElems];
  float d[kGroups], m[kGroups];
  for (int r = 0; r < kRowTile; ++r) {
    const std::byte* row = rows + static_cast<size_t>(r < count ? r : count - 1) * row_bytes;
    for (int64_t i = 0; i < k / T::kElems; ++i) {
      unpack_block(reinterpret_cast<const Block*>(row)[i], q, d, m);
      for (int j = 0; j < kActBlocks; ++j) {
        uint8_t* out = panel.q + ((i * kActBlocks + j) * kRowTile + r) * 32;
        for (int e = 0; e < 32; ++e) out[e] = static_cast<uint8_t>(q[j * 32 + e]) ^ kWeightXor;
      }
      for (int g = 0; g < kGroups; ++g) {
        panel.d[(i * kGroups + g) * kRowTile + r] = d[g];
        if (T::kMin) panel.m[(i * kGroups + g) * kRowTile + r] = m[g];
      }
    }
  }
}

// Rows [r0, r0 + kRows) of the panel times one tile of 16 tokens.
template <int kGroup, bool kMin, int kRows>
static inline void panel_times_tile(const Panel& panel, const ActView& x, int64_t tile, int r0, V* acc) {
  const int64_t blocks = x.k / kActBlock;
  constexpr int kHalves = 32 / kGroup;  // groups a block
  for (int r = 0; r < kRows; ++r) acc[r] = vzero();
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t at = tile * blocks + b;
    const int8_t* q = x.q + at * kActBlock * kTokenTile;
    const V dx = vload(x.d + at * kTokenTile);
    const int32_t* sums = x.sum16 + at * 2 * kTokenTile;
    for (int h = 0; h < kHalves; ++h) {
      const I half_sum = iload(sums + h * kTokenTile);
      const I start = dot_start(kGroup == 32 ? iadd(half_sum, iload(sums + kTokenTile)) : half_sum);
      const V s = kGroup == 32 ? vload(x.s32 + at * kTokenTile) : vload(x.s16 + (at * 2 + h) * kTokenTile);
      const int64_t scales = (b * kHalves + h) * kRowTile + r0;
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* w = panel.q + (b * kRowTile + r0 + r) * 32 + h * 16;
        I sum = start;
        for (int quad = 0; quad < kGroup / 4; ++quad) {
          sum = dot_quad(sum, w + quad * 4, q + (h * 4 + quad) * 4 * kTokenTile);
        }
        acc[r] = vfma(vmul(vset1(panel.d[scales + r]), dx), vfromi(sum), acc[r]);
        if (kMin) acc[r] = vfma(vset1(panel.m[scales + r]), s, acc[r]);
      }
    }
  }
}

// Writes lanes (tokens) of rows [row, row + rows) to y.
static inline void scatter_tile(const MatmulArgs& a, int64_t tile, int64_t row, int rows, const V* acc) {
  float lanes[16];
  const int64_t t0 = tile * kTokenTile;
  const int64_t count = a.x.tokens - t0 < kTokenTile ? a.x.tokens - t0 : kTokenTile;
  for (int r = 0; r < rows; ++r) {
    vstore(lanes, acc[r]);
    for (int64_t t = 0; t < count; ++t) a.y[(t0 + t) * a.y_stride + row + r] = lanes[t];
  }
}

template <typename Block>
static void gemm(const MatmulArgs& a) {
  using T = BlockTraits<Block>;
  constexpr int kRows = 8;
  const Panel panel = carve_panel(a.scratch, a.w.cols);
  const int64_t tiles = (a.x.tokens + kTokenTile - 1) / kTokenTile;
  const int64_t rows = a.w.rows.size();
  for (int64_t row = 0; row < rows; row += kRowTile) {
    const int count = static_cast<int>(rows - row < kRowTile ? rows - row : kRowTile);
    pack_panel<Block>(a.w.data + static_cast<size_t>(row) * a.w.row_bytes, a.w.row_bytes, count, a.w.cols, panel);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int r0 = 0; r0 < count; r0 += kRows) {
        V acc[kRows];
        panel_times_tile<T::kGroup, T::kMin, kRows>(panel, a.x, tile, r0, acc);
        scatter_tile(a, tile, row + r0, count - r0 < kRows ? count - r0 : kRows, acc);
      }
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA
