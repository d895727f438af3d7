// Scattered rows times one token, kLanes side by side: see row_lanes.h.
#pragma once

#include "kernels/generic/row_lanes.h"
#include "kernels/sparse.h"

namespace stoke::kernels::STOKE_ISA {

template <typename Block>
static void gather_lanes(const GatherArgs& a) {
  const auto x = lane_acts<1>(a.x);
  const int64_t bytes = a.x.k / BlockTraits<Block>::kElems * static_cast<int64_t>(sizeof(Block));
  for (int64_t j = 0; j < kLanes && j < a.count; ++j) prefetch_bytes(a.rows[j], bytes);
  for (int64_t j = 0; j < a.count; j += kLanes) {
    const int count = static_cast<int>(a.count - j < kLanes ? a.count - j : kLanes);
    const std::byte *rows[kLanes], *next[kLanes];
    for (int64_t r = 0; r < kLanes; ++r) {
      rows[r] = a.rows[j + r < a.count ? j + r : a.count - 1];
      next[r] = a.rows[j + kLanes + r < a.count ? j + kLanes + r : a.count - 1];
    }
    WF acc[1];
    lane_rows<Block, 1>(Scattered{rows, 0}, a.x.k, x, acc, [&](size_t at, auto bytes) {
      for (int r = 0; r < kLanes; ++r) prefetch_all<bytes()>(next[r] + at);
    });
    store_some(acc, 1, count, a.y + j, 0);
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_GATHER gather_lanes
