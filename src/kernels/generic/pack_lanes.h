// Packing of panels, kLanes rows side by side: see row_lanes.h. A panel's quads are what Quads gives; an instruction
// set may lay them out in its own way (STOKE_STORE_QUADS, a function's name).
#pragma once

#include <utility>

#include "kernels/generic/row_lanes.h"

namespace stoke::kernels::STOKE_ISA {

#ifndef STOKE_STORE_QUADS
#define STOKE_STORE_QUADS store_quads
static_assert(kPanelRow == 4 && kPanelQuad == 64);

// kLanes rows' codes of 32 elements.
static inline void store_quads(uint8_t* out, const W* w) {
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) w_store(out + j * kPanelQuad, w[j]);
}
#endif

template <typename Block, int S>
static inline void pack_lane_sub(Quads<Block>& quads, const auto& rows, uint8_t* out) {
  quads.template begin<S>(rows);
  W w[8];
  take_quads<Block, S>(std::make_integer_sequence<int, 8>(), quads, w);
  STOKE_STORE_QUADS(out + S * 512, w);
}

template <typename Block, int... S>
static inline void pack_lane_subs(std::integer_sequence<int, S...>, const auto& rows, uint8_t* out) {
  Quads<Block> quads;
  (pack_lane_sub<Block, S>(quads, rows, out), ...);
}

template <typename Block>
static void pack_panel_lanes(const PanelSource& source, Panel& panel) {
  using T = BlockTraits<Block>;
  static_assert(std::is_same_v<LaneCodes<Block>, PanelCodes<Block>>);
  constexpr int kGroups = T::kElems / T::kGroup;
  const auto first = static_cast<size_t>(source.first / T::kElems) * sizeof(Block);
  for (int r0 = 0; r0 < kRowTile; r0 += kLanes) {
    const std::byte* rows_at[kLanes];
    for (int r = 0; r < kLanes; ++r) {
      const int row = r0 + r < source.count ? r0 + r : source.count - 1;
      rows_at[r] = source.rows + static_cast<size_t>(row) * source.row_bytes;
    }
    for (int64_t i = 0; i < source.elems / T::kElems; ++i) {
      const auto rows = Scattered{rows_at, first}.at(static_cast<size_t>(i) * sizeof(Block));
      WF d[kGroups], m[T::kMin ? kGroups : 1];
      lane_scales(static_cast<const Block*>(nullptr), rows, d, m);
      for (int g = 0; g < kGroups; ++g) {
        wf_store(panel.d + (i * kGroups + g) * kRowTile + r0, d[g]);
        if constexpr (T::kMin) wf_store(panel.m + (i * kGroups + g) * kRowTile + r0, m[g]);
      }
      pack_lane_subs<Block>(std::make_integer_sequence<int, T::kElems / 32>(), rows,
                            panel.q + i * T::kElems * kRowTile + r0 * kPanelRow);
    }
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_PACK_PANEL pack_panel_lanes
