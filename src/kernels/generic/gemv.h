// Products of quantised weights with one token: sixteen rows side by side, one a lane. Order of summation: kernels.h.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

template <typename Block>
static void gemv(const MatmulArgs& a) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  const int64_t rows = a.w.rows.size();
  int8_t q[T::kElems];
  float d[kGroups][16], m[kGroups][16], row_d[kGroups], row_m[kGroups];
  int32_t sums[kGroups][16];
  for (int64_t row = 0; row < rows; row += kRowTile) {
    const int count = static_cast<int>(rows - row < kRowTile ? rows - row : kRowTile);
    V acc = vzero();
    for (int64_t i = 0; i < a.w.cols / T::kElems; ++i) {
      for (int r = 0; r < kRowTile; ++r) {
        const std::byte* source = a.w.data + static_cast<size_t>(row + (r < count ? r : count - 1)) * a.w.row_bytes;
        unpack_block(reinterpret_cast<const Block*>(source)[i], q, row_d, row_m);
        for (int g = 0; g < kGroups; ++g) {
          sums[g][r] = dot_bytes(q + g * T::kGroup, a.x.q + i * T::kElems + g * T::kGroup, T::kGroup);
          d[g][r] = row_d[g];
          if (T::kMin) m[g][r] = row_m[g];
        }
      }
      for (int g = 0; g < kGroups; ++g) {
        const int64_t group = i * kGroups + g;
        const float dx = a.x.d[group * T::kGroup / kActBlock];
        acc = vfma(vmul(vload(d[g]), vset1(dx)), vfromi(iload(sums[g])), acc);
        if (T::kMin) acc = vfma(vload(m[g]), vset1(T::kGroup == 32 ? a.x.s32[group] : a.x.s16[group]), acc);
      }
    }
    vstore_n(a.y + row, acc, count);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
