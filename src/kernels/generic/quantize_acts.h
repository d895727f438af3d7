// Activations to blocks of 32 signed bytes: d = max|x| / 127, q = round_even(x * (127 / max|x|)).
// Layout: kernels.h, ActView. The bits of a token do not depend on the tokens beside it.
#pragma once

#include <cstring>

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

struct QuantizedBlock {
  int8_t q[32];
  float d;
  int32_t sum[2];  // of q over each half
};

static inline void quantize_block(const float* x, QuantizedBlock* out) {
  const V lo = vload(x);
  const V hi = vload(x + 16);
  const float peak = vmaxv(vmax(vabs(lo), vabs(hi)));
  const V inverse = vset1(peak > 0.0f ? 127.0f / peak : 0.0f);
  // Bounds that only NaN and the infinities of a denormal peak reach: their sums would overflow.
  const V limit = vset1(127.0f);
  const auto bounded = [&](V v) { return vtoi(vmax(vmin(vmul(v, inverse), limit), vneg(limit))); };
  const I qlo = bounded(lo);
  const I qhi = bounded(hi);
  istore_i8(out->q, qlo);
  istore_i8(out->q + 16, qhi);
  out->d = peak / 127.0f;
  out->sum[0] = isum(qlo);
  out->sum[1] = isum(qhi);
}

static inline void place_block(const ActView& x, int64_t t, int64_t b, const QuantizedBlock& block) {
  const int64_t g = x.group();
  const int64_t at = t / g * (x.k / kActBlock) + b;  // index of (tile, block)
  int8_t* q = const_cast<int8_t*>(x.q) + at * g * kActBlock + t % g * 4;
  for (int quad = 0; quad < 8; ++quad) std::memcpy(q + quad * 4 * g, block.q + quad * 4, 4);
  const_cast<float*>(x.d)[at * g + t % g] = block.d;
  const_cast<float*>(x.s32)[at * g + t % g] = block.d * static_cast<float>(block.sum[0] + block.sum[1]);
  for (int h = 0; h < 2; ++h) {
    const_cast<float*>(x.s16)[(at * 2 + h) * g + t % g] = block.d * static_cast<float>(block.sum[h]);
    const_cast<int32_t*>(x.sum16)[(at * 2 + h) * g + t % g] = block.sum[h];
  }
}

static void quantize_acts(const ActView& x, int64_t t0, int64_t t1) {
  const int64_t blocks = x.k / kActBlock;
  QuantizedBlock block;
  for (int64_t t = t0; t < t1; ++t) {
    for (int64_t b = 0; b < blocks; ++b) {
      quantize_block(x.f + t * x.f_stride + b * kActBlock, &block);
      place_block(x, t, b, block);
    }
  }
  if (t1 < x.tokens || x.group() == 1) return;
  std::memset(&block, 0, sizeof block);
  for (int64_t t = t1; t % kTokenTile != 0; ++t) {
    for (int64_t b = 0; b < blocks; ++b) place_block(x, t, b, block);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
