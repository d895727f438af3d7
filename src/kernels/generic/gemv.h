// Products of quantised weights with one token: sixteen rows side by side, one a lane. Order of summation: kernels.h.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// Adds blocks [first, last) of sixteen rows, wherever they lie; one row a lane.
template <typename Block>
static inline V add_blocks(const std::byte* const* rows, const ActView& x, int64_t first, int64_t last, V acc) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  int8_t q[T::kElems];
  float d[kGroups][16], m[kGroups][16], row_d[kGroups], row_m[kGroups];
  int32_t sums[kGroups][16];
  for (int64_t i = first; i < last; ++i) {
    for (int r = 0; r < kRowTile; ++r) {
      unpack_block(reinterpret_cast<const Block*>(rows[r])[i], q, row_d, row_m);
      for (int g = 0; g < kGroups; ++g) {
        sums[g][r] = dot_bytes(q + g * T::kGroup, x.q + i * T::kElems + g * T::kGroup, T::kGroup);
        d[g][r] = row_d[g];
        if (T::kMin) m[g][r] = row_m[g];
      }
    }
    for (int g = 0; g < kGroups; ++g) {
      const int64_t group = i * kGroups + g;
      const float dx = x.d[group * T::kGroup / kActBlock];
      acc = vfma(vmul(vload(d[g]), vset1(dx)), vfromi(iload(sums[g])), acc);
      if (T::kMin) acc = vfma(vload(m[g]), vset1(T::kGroup == 32 ? x.s32[group] : x.s16[group]), acc);
    }
  }
  return acc;
}

template <typename Block>
static void gemv(const MatmulArgs& a) {
  const int64_t rows = a.w.rows.size();
  const std::byte* tile[kRowTile];
  for (int64_t row = 0; row < rows; row += kRowTile) {
    const int count = static_cast<int>(rows - row < kRowTile ? rows - row : kRowTile);
    for (int r = 0; r < kRowTile; ++r) {
      tile[r] = a.w.data + static_cast<size_t>(row + (r < count ? r : count - 1)) * a.w.row_bytes;
    }
    vstore_n(a.y + row, add_blocks<Block>(tile, a.x, 0, a.w.cols / BlockTraits<Block>::kElems, vzero()), count);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
