// Eight rows side by side with NEON, for generic/row_lanes.h: W holds one dword of each row in two registers, WF one
// float. Codes reach dot_quad as they are: below 128, or signed.
#pragma once

#define STOKE_LANES

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/generic/codes.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr int kLanes = 8;

}  // namespace stoke::kernels::STOKE_ISA

#include "kernels/generic/row_sources.h"

namespace stoke::kernels::STOKE_ISA {

struct W {
  uint32x4_t h[2];
};
struct WF {
  float32x4_t h[2];
};
static constexpr int kTogether = 4, kFewTiles = 1;
static constexpr DotTakes kRowsTake = kDotTakes;

template <typename F>
[[gnu::always_inline]] static inline W w_each(F&& f) {
  return {{f(0), f(1)}};
}
template <typename F>
[[gnu::always_inline]] static inline WF wf_each(F&& f) {
  return {{f(0), f(1)}};
}

static inline WF wf_zero() { return {{vdupq_n_f32(0), vdupq_n_f32(0)}}; }
static inline WF wf_set1(float f) { return {{vdupq_n_f32(f), vdupq_n_f32(f)}}; }
static inline void wf_store(float* p, WF v) {
  vst1q_f32(p, v.h[0]);
  vst1q_f32(p + 4, v.h[1]);
}
static inline WF wf_mul(WF a, WF b) {
  return wf_each([&](int i) { return vmulq_f32(a.h[i], b.h[i]); });
}
static inline WF wf_fma(WF a, WF b, WF c) {
  return wf_each([&](int i) { return vfmaq_f32(c.h[i], a.h[i], b.h[i]); });
}
static inline WF wf_neg(WF a) {
  return wf_each([&](int i) { return vnegq_f32(a.h[i]); });
}
static inline WF wf_from(W w) {
  return wf_each([&](int i) { return vcvtq_f32_s32(vreinterpretq_s32_u32(w.h[i])); });
}

static inline void w_store(uint8_t* p, W w) {
  vst1q_u8(p, vreinterpretq_u8_u32(w.h[0]));
  vst1q_u8(p + 16, vreinterpretq_u8_u32(w.h[1]));
}
static inline W w_zero() { return {{vdupq_n_u32(0), vdupq_n_u32(0)}}; }
static inline W w_set1(int32_t n) {
  return w_each([&](int) { return vdupq_n_u32(static_cast<uint32_t>(n)); });
}
static inline W w_add(W a, W b) {
  return w_each([&](int i) { return vaddq_u32(a.h[i], b.h[i]); });
}
static inline W w_sub(W a, W b) {
  return w_each([&](int i) { return vsubq_u32(a.h[i], b.h[i]); });
}
static inline W w_or(W a, W b) {
  return w_each([&](int i) { return vorrq_u32(a.h[i], b.h[i]); });
}
static inline W w_xor(W a, W b) {
  return w_each([&](int i) { return veorq_u32(a.h[i], b.h[i]); });
}
// Shifts by vectors: those by a constant take no zero.
template <int kShift>
static inline W w_field(W w, int mask) {
  return w_each([&](int i) {
    return vandq_u32(vshlq_u32(w.h[i], vdupq_n_s32(-kShift)), vdupq_n_u32(static_cast<uint32_t>(mask)));
  });
}
template <int kByte>
static inline W w_signed_byte(W w) {
  return w_each([&](int i) {
    const int32x4_t top = vshlq_s32(vreinterpretq_s32_u32(w.h[i]), vdupq_n_s32(24 - 8 * kByte));
    return vreinterpretq_u32_s32(vshrq_n_s32(top, 24));
  });
}
template <int kShift>
static inline W w_left(W w) {
  return w_each([&](int i) { return vshlq_n_u32(w.h[i], kShift); });
}
template <int kShift>
static inline W w_bits(W w, int mask) {
  return w_each([&](int i) {
    const uint8x16_t shifted = vshlq_u8(vreinterpretq_u8_u32(w.h[i]), vdupq_n_s8(-kShift));
    return vreinterpretq_u32_u8(vandq_u8(shifted, vdupq_n_u8(static_cast<uint8_t>(mask))));
  });
}
static inline W w_levels(W nibbles, const int8_t* table, int offset) {
  const uint8x16_t levels = vreinterpretq_u8_s8(vaddq_s8(vld1q_s8(table), vdupq_n_s8(static_cast<int8_t>(offset))));
  return w_each([&](int i) { return vreinterpretq_u32_u8(vqtbl1q_u8(levels, vreinterpretq_u8_u32(nibbles.h[i]))); });
}
template <int kQuad>
static inline W w_sixteens(W dwords) {
  constexpr uint8_t kByte = kQuad / 2;
  constexpr uint8_t kSpread[16] = {kByte,      kByte,      kByte,      kByte,     kByte + 4, kByte + 4,
                                   kByte + 4,  kByte + 4,  kByte + 8,  kByte + 8, kByte + 8, kByte + 8,
                                   kByte + 12, kByte + 12, kByte + 12, kByte + 12};
  const uint8x16_t bit = vreinterpretq_u8_u32(vdupq_n_u32(0x08040201u << kQuad % 2 * 4));
  return w_each([&](int i) {
    const uint8x16_t set = vtstq_u8(vqtbl1q_u8(vreinterpretq_u8_u32(dwords.h[i]), vld1q_u8(kSpread)), bit);
    return vreinterpretq_u32_u8(vandq_u8(set, vdupq_n_u8(16)));
  });
}
static inline WF wf_mxfp4(W e) {
  return wf_each([&](int i) {
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e.h[i], vdupq_n_u32(1)), 23);
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e.h[i]));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e.h[i], vdupq_n_u32(2)), tiny, normal));
  });
}

static inline void load_quads(const auto& rows, size_t at, W* w) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    auto row = [&](int r) { return vreinterpretq_u32_u8(vld1q_u8(rows(4 * i + r) + at)); };
    auto pairs = [](uint32x4_t v) { return vreinterpretq_u64_u32(v); };
    const uint32x4_t r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
    const uint64x2_t a = pairs(vtrn1q_u32(r0, r1)), b = pairs(vtrn2q_u32(r0, r1));
    const uint64x2_t c = pairs(vtrn1q_u32(r2, r3)), d = pairs(vtrn2q_u32(r2, r3));
    w[0].h[i] = vreinterpretq_u32_u64(vtrn1q_u64(a, c));
    w[1].h[i] = vreinterpretq_u32_u64(vtrn1q_u64(b, d));
    w[2].h[i] = vreinterpretq_u32_u64(vtrn2q_u64(a, c));
    w[3].h[i] = vreinterpretq_u32_u64(vtrn2q_u64(b, d));
  }
}

static inline W load_words(const auto& rows, size_t at) {
  return w_each([&](int i) {
    uint32_t words[4];
    for (int r = 0; r < 4; ++r) std::memcpy(words + r, rows(4 * i + r) + at, sizeof words[0]);
    return uint32x4_t{words[0], words[1], words[2], words[3]};
  });
}

struct Halves {
  WF low, high;
};
static inline Halves load_halves(const auto& rows, size_t at) {
  const W words = load_words(rows, at);
  auto widen = [](uint16x4_t v) { return vcvt_f32_f16(vreinterpret_f16_u16(v)); };
  return {wf_each([&](int i) { return widen(vmovn_u32(words.h[i])); }),
          wf_each([&](int i) { return widen(vshrn_n_u32(words.h[i], 16)); })};
}

[[gnu::always_inline]] static inline W w_dot(W sum, W w, int8x16_t quad) {
  return w_each([&](int i) {
    const int32x4_t s = vreinterpretq_s32_u32(sum.h[i]);
    return vreinterpretq_u32_s32(dot_quad(s, vreinterpretq_s8_u32(w.h[i]), quad));
  });
}

}  // namespace stoke::kernels::STOKE_ISA
