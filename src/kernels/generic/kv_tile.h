// Cache tiles (kernels/attention.h) to FP32 and back. Written once, compiled once per instruction set.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/generic/prefetch.h"
#include "tensor/half.h"

namespace stoke::kernels::STOKE_ISA {

constexpr int kTileVecs = static_cast<int>(kTileTokens / 16);

static inline int64_t distance(const void* from, const void* to) {
  return reinterpret_cast<intptr_t>(to) - reinterpret_cast<intptr_t>(from);
}

static inline void prefetch(const void* at, int64_t ahead) { prefetch_near(reinterpret_cast<const char*>(at) + ahead); }

// Each widening fetches the next tile's part, `ahead` bytes on, while this one's is worked on.
static void widen_f16(const uint16_t* from, int64_t ahead, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += 16) {
    if (i % 32 == 0) prefetch(from + i, ahead);
    vstore(to + i, vload_f16(from + i));
  }
}

static void widen_q8_k(const int8_t* bytes, int64_t ahead, const uint16_t* scales, int64_t head_dim, float* to) {
  for (int64_t first = 0; first < head_dim; first += 32) {
    V factor[kTileVecs];
    for (int i = 0; i < kTileVecs; ++i) factor[i] = vload_f16(scales + first / 32 * kTileTokens + i * 16);
    const int64_t end = first + 32 < head_dim ? first + 32 : head_dim;
    for (int64_t d = first; d < end; ++d) {
      prefetch(bytes + d * kTileTokens, ahead);
      for (int i = 0; i < kTileVecs; ++i) {
        const int64_t at = d * kTileTokens + i * 16;
        vstore(to + at, vmul(vfromi(iload_i8(bytes + at)), factor[i]));
      }
    }
  }
}

static void widen_q8_v(const int8_t* bytes, int64_t ahead, const uint16_t* scales, int64_t head_dim, float* to) {
  const int64_t padded = padded_dim(head_dim);
  const int64_t blocks = scale_blocks(head_dim);
  int64_t block = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < kTileTokens * blocks; i += 16) {
    alignas(64) float factors[16];
    vstore(factors, vload_f16(scales + i));
    for (const float factor : factors) {
      prefetch(bytes + at, ahead);
      const bool half = block * 32 + 16 == padded;  // the last block of a row may be half a one
      vstore(to + at, vmul(vfromi(iload_i8(bytes + at)), vset1(factor)));
      if (!half) vstore(to + at + 16, vmul(vfromi(iload_i8(bytes + at + 16)), vset1(factor)));
      at += half ? 16 : 32;
      block = block + 1 == blocks ? 0 : block + 1;
    }
  }
}

// A tile to FP32: k (head_dim, 64), v (64, padded_dim). next: the tile that comes after this one.
static void widen(KvFormat format, const KvTile& tile, const KvTile& next, int64_t head_dim, float* k, float* v) {
  const int64_t ahead_k = distance(tile.k, next.k);
  const int64_t ahead_v = distance(tile.v, next.v);
  if (format == KvFormat::kF16) {
    widen_f16(static_cast<const uint16_t*>(tile.k), ahead_k, head_dim * kTileTokens, k);
    widen_f16(static_cast<const uint16_t*>(tile.v), ahead_v, padded_dim(head_dim) * kTileTokens, v);
    return;
  }
  widen_q8_k(static_cast<const int8_t*>(tile.k), ahead_k, tile.k_scale, head_dim, k);
  widen_q8_v(static_cast<const int8_t*>(tile.v), ahead_v, tile.v_scale, head_dim, v);
}

static inline V load_up_to(const float* p, int64_t n) { return n >= 16 ? vload(p) : vload_n(p, static_cast<int>(n)); }

static void store_f16(const KvStoreArgs& a, int64_t position, const float* k, const float* v) {
  uint16_t* k_out = static_cast<uint16_t*>(a.tile.k) + position;
  uint16_t* v_out = static_cast<uint16_t*>(a.tile.v) + position * padded_dim(a.head_dim);
  for (int64_t d = 0; d < a.head_dim; d += 16) {
    const int64_t left = a.head_dim - d;
    uint16_t halves[16];
    vstore_f16(halves, load_up_to(k + d, left));
    for (int64_t i = 0; i < 16 && i < left; ++i) k_out[(d + i) * kTileTokens] = halves[i];
    vstore_f16(v_out + d, load_up_to(v + d, left));
  }
}

// Up to 32 values to bytes: x = scale * byte, with the scale already rounded to the half that is stored.
static inline uint16_t quantize_kv(const float* x, int64_t n, int8_t* bytes) {
  const V low = load_up_to(x, n);
  const V high = n > 16 ? load_up_to(x + 16, n - 16) : vzero();
  const uint16_t half = float_to_half(vmaxv(vmax(vabs(low), vabs(high))) / 127.0f);
  const float factor = half_to_float(half);
  const V inverse = vset1(factor > 0 ? 1.0f / factor : 0.0f);
  const V limit = vset1(127.0f);
  const auto bounded = [&](V v) { return vtoi(vmax(vneg(limit), vmin(limit, vmul(v, inverse)))); };
  istore_i8(bytes, bounded(low));
  istore_i8(bytes + 16, bounded(high));
  return half;
}

static void store_q8(const KvStoreArgs& a, int64_t position, const float* k, const float* v) {
  const int64_t padded = padded_dim(a.head_dim);
  int8_t* k_out = static_cast<int8_t*>(a.tile.k) + position;
  int8_t* v_out = static_cast<int8_t*>(a.tile.v) + position * padded;
  for (int64_t d = 0; d < a.head_dim; d += 32) {
    const int64_t n = a.head_dim - d < 32 ? a.head_dim - d : 32;
    int8_t bytes[32];
    a.tile.k_scale[d / 32 * kTileTokens + position] = quantize_kv(k + d, n, bytes);
    for (int64_t i = 0; i < n; ++i) k_out[(d + i) * kTileTokens] = bytes[i];
    a.tile.v_scale[position * scale_blocks(a.head_dim) + d / 32] = quantize_kv(v + d, n, bytes);
    for (int64_t i = 0; i < 32 && d + i < padded; ++i) v_out[d + i] = bytes[i];
  }
}

static void kv_store(const KvStoreArgs& args) {
  const auto put = args.format == KvFormat::kF16 ? store_f16 : store_q8;
  for (int64_t i = 0; i < args.count; ++i) {
    put(args, args.offset + i, args.k + i * args.stride, args.v + i * args.stride);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
