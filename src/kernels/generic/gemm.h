// Products of quantised weights with a batch of tokens.
//
// Rows are unpacked sixteen at a time into panels, kChunk elements deep, once for all tokens. Loops are cut so that two
// panels and one tile of 16 tokens (the lanes) meet in the first-level cache, and kPanels panels with that depth of all
// activations in the second. Accumulators rest in scratch between chunks, so the order of summation (kernels.h) is
// untouched. No second copy of the weights is ever kept.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr int64_t kChunk = 512;        // elements of k a panel is deep
static constexpr int kPanels = 8;             // panels unpacked together: 128 rows
static constexpr int kNearPanels = 2;         // panels that stay in the first-level cache
static constexpr int64_t kBatchTokens = 512;  // tokens whose accumulators scratch can hold

// Sixteen unpacked rows, at most kChunk deep. Groups are 16 or 32 long.
struct Panel {
  uint8_t q[kChunk * 16];  // (blocks, 512): codes as PanelCodes says, rows and quads as kPanelRow and kPanelQuad do
  float d[kChunk];         // (groups, 16 rows)
  float m[kChunk];         // (groups, 16 rows); types with a minimum only
};

struct GemmScratch {
  Panel panel[kPanels];
  float acc[kPanels][kBatchTokens / kTokenTile][16][16];  // (panel, tile, row, token)
};
static_assert(sizeof(GemmScratch) <= kScratchFixedBytes);

// Rows of one panel and the part of k it is to hold.
struct PanelSource {
  const std::byte* rows;
  size_t row_bytes;
  int count;      // 1..16; the rest of the panel repeats the last row, so that it always holds valid numbers
  int64_t first;  // element of k, a multiple of 256
  int64_t elems;  // at most kChunk
};

template <typename Block>
using PanelCodes = decltype(codes_for<kDotTakes, BlockTraits<Block>>());

template <typename Block>
static void pack_panel(const PanelSource& source, Panel& panel) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  constexpr int kActBlocks = T::kElems / 32;
  int8_t q[T::kElems];
  float d[kGroups], m[kGroups];
  for (int r = 0; r < kRowTile; ++r) {
    const std::byte* row =
        source.rows + static_cast<size_t>(r < source.count ? r : source.count - 1) * source.row_bytes;
    const Block* blocks = reinterpret_cast<const Block*>(row) + source.first / T::kElems;
    for (int64_t i = 0; i < source.elems / T::kElems; ++i) {
      unpack_block(blocks[i], q, d, m);
      for (int j = 0; j < kActBlocks; ++j) {
        uint8_t* out = panel.q + (i * kActBlocks + j) * 512 + r * kPanelRow;
        for (int e = 0; e < 32; ++e) {
          out[e / 4 * kPanelQuad + e % 4] = static_cast<uint8_t>(q[j * 32 + e] + PanelCodes<Block>::kBias);
        }
      }
      for (int g = 0; g < kGroups; ++g) {
        panel.d[(i * kGroups + g) * kRowTile + r] = d[g];
        if (T::kMin) panel.m[(i * kGroups + g) * kRowTile + r] = m[g];
      }
    }
  }
}

// One tile of 16 tokens, at the blocks of the current chunk.
struct TileSource {
  const int8_t* q;       // (blocks, 8, 16, 4)
  const float* d;        // (blocks, 16)
  const float* s32;      // (blocks, 16)
  const float* s16;      // (blocks, 2, 16)
  const int32_t* sum16;  // (blocks, 2, 16)
  int64_t blocks;
};

static inline TileSource tile_source(const ActView& x, int64_t tile, int64_t first, int64_t elems) {
  const int64_t at = tile * (x.k / kActBlock) + first / kActBlock;
  return {x.q + at * kActBlock * kTokenTile, x.d + at * kTokenTile,         x.s32 + at * kTokenTile,
          x.s16 + at * 2 * kTokenTile,       x.sum16 + at * 2 * kTokenTile, elems / kActBlock};
}

// What tile products need to know of a type; types that agree share them.
template <int kGroupOf, bool kMinOf, typename CodesOf>
struct PanelKind : CodesOf {
  static constexpr int kGroup = kGroupOf;
  static constexpr bool kMin = kMinOf;
};
template <typename Block>
using PanelKindOf = PanelKind<BlockTraits<Block>::kGroup, BlockTraits<Block>::kMin, PanelCodes<Block>>;

// Rows of the register block: two registers of tokens a row where there are but sixteen.
static constexpr int kSumRows = kVRegisters >= 32 ? 8 : 4;

// Rows [r0, r0 + kSumRows) of the panel times the tile, added to acc (16 rows, 16 tokens).
template <typename Kind>
static inline void add_rows(const Panel& panel, const TileSource& x, int r0, float (*acc)[16]) {
  constexpr int kHalves = 32 / Kind::kGroup;  // groups a block
  V sum[kSumRows];                            // in registers: the loops over rows must be unrolled
#pragma GCC unroll 8
  for (int r = 0; r < kSumRows; ++r) sum[r] = vload(acc[r0 + r]);
  for (int64_t b = 0; b < x.blocks; ++b) {
    const V dx = vload(x.d + b * kTokenTile);
    for (int h = 0; h < kHalves; ++h) {
      I start = iset1(0);
      if constexpr (Kind::kBias != 0) {
        start = iload(x.sum16 + (b * 2 + h) * kTokenTile);
        if constexpr (kHalves == 1) start = iadd(start, iload(x.sum16 + (b * 2 + 1) * kTokenTile));
        start = isub(iset1(0), times<Kind::kBias>(start));
      }
      const int8_t* q = x.q + (b * 2 + h) * 16 * kTokenTile;
      const uint8_t* w = panel.q + b * 512 + h * 4 * kPanelQuad + r0 * kPanelRow;
      const int64_t scales = (b * kHalves + h) * kRowTile + r0;
#pragma GCC unroll 8
      for (int r = 0; r < kSumRows; r += kDotRows) {
        I dots[kDotRows];
        dot_rows<Kind, Kind::kGroup / 4>(start, w + r * kPanelRow, q, dots);
#pragma GCC unroll 8
        for (int i = 0; i < kDotRows; ++i) {
          sum[r + i] = vfma(vmul(vset1(panel.d[scales + r + i]), dx), vfromi(dots[i]), sum[r + i]);
          if constexpr (Kind::kMin) {
            const V s = kHalves == 1 ? vload(x.s32 + b * kTokenTile) : vload(x.s16 + (b * 2 + h) * kTokenTile);
            sum[r + i] = vfma(vset1(panel.m[scales + r + i]), s, sum[r + i]);
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kSumRows; ++r) vstore(acc[r0 + r], sum[r]);
}

// Not inlined: beside the packing's registers it lost a sixth.
template <typename Kind>
[[gnu::noinline]] static void add_tile(const Panel& panel, const TileSource& x, float (*acc)[16]) {
  for (int r0 = 0; r0 < kRowTile; r0 += kSumRows) add_rows<Kind>(panel, x, r0, acc);
}

// acc is (row, token); y wants rows side by side for each token.
static inline void write_tile(const float (*acc)[16], int rows, int64_t tokens, float* y, int64_t y_stride) {
  V columns[16];
  for (int r = 0; r < 16; ++r) columns[r] = vload(acc[r]);
  vtranspose(columns);
  for (int64_t t = 0; t < tokens; ++t) vstore_n(y + t * y_stride, columns[t], rows);
}

}  // namespace stoke::kernels::STOKE_ISA

// An instruction set may bring its own packing and its own tile product: it defines STOKE_PACK_PANEL and STOKE_ADD_TILE
// (function template names) in the header STOKE_GEMM_HEADER.
#ifdef STOKE_GEMM_HEADER
#include STOKE_GEMM_HEADER
#endif
#ifndef STOKE_PACK_PANEL
#define STOKE_PACK_PANEL pack_panel
#endif
#ifndef STOKE_ADD_TILE
#define STOKE_ADD_TILE add_tile
#endif
#ifndef STOKE_GEMM_SESSION
// Something to hold while tile products run on this thread.
#define STOKE_GEMM_SESSION(group) static_cast<void>(0)
#endif

namespace stoke::kernels::STOKE_ISA {

// Up to kPanels panels of rows times up to kBatchTokens tokens.
template <typename Block>
static void gemm_block(const MatmulArgs& a, GemmScratch& scratch) {
  const int64_t tiles = (a.x.tokens + kTokenTile - 1) / kTokenTile;
  const int64_t rows = a.w.rows.size();
  const int panels = static_cast<int>((rows + kRowTile - 1) / kRowTile);
  auto count = [&](int p) { return static_cast<int>(rows - p * kRowTile < kRowTile ? rows - p * kRowTile : kRowTile); };
  for (int p = 0; p < panels; ++p)
    std::memset(scratch.acc[p], 0, static_cast<size_t>(tiles) * sizeof scratch.acc[0][0]);
  for (int64_t first = 0; first < a.w.cols; first += kChunk) {
    const int64_t elems = a.w.cols - first < kChunk ? a.w.cols - first : kChunk;
    for (int p = 0; p < panels; ++p) {
      const std::byte* source = a.w.data + static_cast<size_t>(p * kRowTile) * a.w.row_bytes;
      STOKE_PACK_PANEL<Block>({source, a.w.row_bytes, count(p), first, elems}, scratch.panel[p]);
    }
    for (int p0 = 0; p0 < panels; p0 += kNearPanels) {
      const int p1 = panels < p0 + kNearPanels ? panels : p0 + kNearPanels;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const TileSource x = tile_source(a.x, tile, first, elems);
        for (int p = p0; p < p1; ++p) STOKE_ADD_TILE<PanelKindOf<Block>>(scratch.panel[p], x, scratch.acc[p][tile]);
      }
    }
  }
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t t0 = tile * kTokenTile;
    const int64_t tokens = a.x.tokens - t0 < kTokenTile ? a.x.tokens - t0 : kTokenTile;
    for (int p = 0; p < panels; ++p) {
      write_tile(scratch.acc[p][tile], count(p), tokens, a.y + t0 * a.y_stride + p * kRowTile, a.y_stride);
    }
  }
}

// The part of the activations that starts at token t0, a multiple of 16.
static inline ActView acts_from(const ActView& x, int64_t t0, int64_t tokens) {
  const int64_t at = t0 / kTokenTile * (x.k / kActBlock);
  ActView part = x;
  part.tokens = tokens;
  part.q += at * kActBlock * kTokenTile;
  part.d += at * kTokenTile;
  part.s32 += at * kTokenTile;
  part.s16 += at * 2 * kTokenTile;
  part.sum16 += at * 2 * kTokenTile;
  return part;
}

template <typename Block>
static void gemm(const MatmulArgs& a) {
  STOKE_GEMM_SESSION(BlockTraits<Block>::kGroup);
  auto& scratch = *static_cast<GemmScratch*>(a.scratch);
  for (int64_t t0 = 0; t0 < a.x.tokens; t0 += kBatchTokens) {
    const int64_t tokens = a.x.tokens - t0 < kBatchTokens ? a.x.tokens - t0 : kBatchTokens;
    for (int64_t row = 0; row < a.w.rows.size(); row += kPanels * kRowTile) {
      MatmulArgs part = a;
      part.x = acts_from(a.x, t0, tokens);
      const int64_t left = a.w.rows.size() - row;
      part.w.rows = {a.w.rows.begin + row,
                     a.w.rows.begin + row + (left < kPanels * kRowTile ? left : kPanels * kRowTile)};
      part.w.data += static_cast<size_t>(row) * a.w.row_bytes;
      part.y += t0 * a.y_stride + row;
      gemm_block<Block>(part, scratch);
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA
