// Products with float weights. Order: 16 lanes over k by FMA ascending, then the tree of vsum.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

static inline V load_weights(DType type, const std::byte* row, int64_t k) {
  if (type == DType::kF32) return vload(reinterpret_cast<const float*>(row) + k);
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(row) + k;
  return type == DType::kF16 ? vload_f16(halves) : vload_bf16(halves);
}

static float dot_float(const MatmulArgs& a, int64_t row, int64_t t) {
  const std::byte* w = a.w.data + static_cast<size_t>(row) * a.w.row_bytes;
  const float* x = a.x.f + t * a.x.f_stride;
  V acc = vzero();
  int64_t k = 0;
  for (; k + 16 <= a.w.cols; k += 16) acc = vfma(load_weights(a.w.type, w, k), vload(x + k), acc);
  if (k < a.w.cols) {
    const int rest = static_cast<int>(a.w.cols - k);
    float tail[16] = {};
    dequantize_row(a.w.type, w + k * (a.w.type == DType::kF32 ? 4 : 2), tail, rest);
    acc = vfma(vload(tail), vload_n(x + k, rest), acc);
  }
  return vsum(acc);
}

static void matmul_float(const MatmulArgs& a) {
  for (int64_t row = 0; row < a.w.rows.size(); ++row) {
    for (int64_t t = 0; t < a.x.tokens; ++t) a.y[t * a.y_stride + row] = dot_float(a, row, t);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
