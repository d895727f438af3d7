// vec16_portable.h's functions with NEON (ARMv8.2): four 128-bit quarters. See there for the semantics.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace stoke::kernels::STOKE_ISA {

struct V {
  float32x4_t q[4];
};
struct I {
  int32x4_t q[4];
};
constexpr int kVRegisters = 8;

#define STOKE_QUARTERS for (int i = 0; i < 4; ++i)

static inline V vload(const float* p) {
  V r;
  STOKE_QUARTERS r.q[i] = vld1q_f32(p + 4 * i);
  return r;
}
static inline void vstore(float* p, V v) { STOKE_QUARTERS vst1q_f32(p + 4 * i, v.q[i]); }
static inline V vset1(float f) {
  V r;
  STOKE_QUARTERS r.q[i] = vdupq_n_f32(f);
  return r;
}
static inline V vzero() { return vset1(0.0f); }
static inline V vload_n(const float* p, int n) {
  float t[16] = {};
  std::memcpy(t, p, sizeof(float) * static_cast<size_t>(n));
  return vload(t);
}
static inline void vstore_n(float* p, V v, int n) {
  float t[16];
  vstore(t, v);
  std::memcpy(p, t, sizeof(float) * static_cast<size_t>(n));
}
static inline V vload_f16(const uint16_t* p) {
  V r;
  STOKE_QUARTERS r.q[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}
static inline V vload_bf16(const uint16_t* p) {
  V r;
  STOKE_QUARTERS r.q[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}
static inline void vstore_f16(uint16_t* p, V v) {
  STOKE_QUARTERS vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.q[i])));
}

static inline V vadd(V a, V b) {
  STOKE_QUARTERS a.q[i] = vaddq_f32(a.q[i], b.q[i]);
  return a;
}
static inline V vsub(V a, V b) {
  STOKE_QUARTERS a.q[i] = vsubq_f32(a.q[i], b.q[i]);
  return a;
}
static inline V vmul(V a, V b) {
  STOKE_QUARTERS a.q[i] = vmulq_f32(a.q[i], b.q[i]);
  return a;
}
static inline V vdiv(V a, V b) {
  STOKE_QUARTERS a.q[i] = vdivq_f32(a.q[i], b.q[i]);
  return a;
}
static inline V vfma(V a, V b, V c) {
  STOKE_QUARTERS c.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
  return c;
}
// Not vmaxq_f32: it would return NaN where the first operand is NaN.
static inline float32x4_t max_quarter(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline float32x4_t min_quarter(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline V vmax(V a, V b) {
  STOKE_QUARTERS a.q[i] = max_quarter(a.q[i], b.q[i]);
  return a;
}
static inline V vmin(V a, V b) {
  STOKE_QUARTERS a.q[i] = min_quarter(a.q[i], b.q[i]);
  return a;
}
static inline V vsqrt(V a) {
  STOKE_QUARTERS a.q[i] = vsqrtq_f32(a.q[i]);
  return a;
}
static inline V vabs(V a) {
  STOKE_QUARTERS a.q[i] = vabsq_f32(a.q[i]);
  return a;
}
static inline V vneg(V a) {
  STOKE_QUARTERS a.q[i] = vnegq_f32(a.q[i]);
  return a;
}
static inline V vround(V a) {
  STOKE_QUARTERS a.q[i] = vrndnq_f32(a.q[i]);
  return a;
}
static inline V vselect_gt(V a, V b, V x, V y) {
  STOKE_QUARTERS x.q[i] = vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), x.q[i], y.q[i]);
  return x;
}
static inline float vsum(V v) {
  const float32x4_t h4 = vaddq_f32(vaddq_f32(v.q[0], v.q[2]), vaddq_f32(v.q[1], v.q[3]));
  const float32x2_t h2 = vadd_f32(vget_low_f32(h4), vget_high_f32(h4));
  return vget_lane_f32(h2, 0) + vget_lane_f32(h2, 1);
}
static inline float vmaxv(V v) {
  const float32x4_t h4 = max_quarter(max_quarter(v.q[0], v.q[2]), max_quarter(v.q[1], v.q[3]));
  const float32x2_t low = vget_low_f32(h4), high = vget_high_f32(h4);
  const float32x2_t h2 = vbsl_f32(vcgt_f32(low, high), low, high);
  return vget_lane_f32(h2, 0) > vget_lane_f32(h2, 1) ? vget_lane_f32(h2, 0) : vget_lane_f32(h2, 1);
}

// Transposes sixteen vectors in place.
static inline void vtranspose(V* rows) {
  float t[16][16];
  for (int r = 0; r < 16; ++r) vstore(t[r], rows[r]);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < r; ++c) {
      const float x = t[r][c];
      t[r][c] = t[c][r];
      t[c][r] = x;
    }
  }
  for (int r = 0; r < 16; ++r) rows[r] = vload(t[r]);
}

static inline I iload(const int32_t* p) {
  I r;
  STOKE_QUARTERS r.q[i] = vld1q_s32(p + 4 * i);
  return r;
}
static inline void istore(int32_t* p, I v) { STOKE_QUARTERS vst1q_s32(p + 4 * i, v.q[i]); }
static inline I iset1(int32_t n) {
  I r;
  STOKE_QUARTERS r.q[i] = vdupq_n_s32(n);
  return r;
}
static inline I iload_i8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
           vmovl_s16(vget_high_s16(high))}};
}
// 16 bytes of two nibbles each.
static inline void inibbles(const void* p, I* low, I* high) {
  const uint8x16_t bytes = vld1q_u8(static_cast<const uint8_t*>(p));
  auto widen = [](uint8x16_t b) {
    const uint16x8_t l = vmovl_u8(vget_low_u8(b)), h = vmovl_u8(vget_high_u8(b));
    auto four = [](uint16x4_t q) { return vreinterpretq_s32_u32(vmovl_u16(q)); };
    return I{{four(vget_low_u16(l)), four(vget_high_u16(l)), four(vget_low_u16(h)), four(vget_high_u16(h))}};
  };
  *low = widen(vandq_u8(bytes, vdupq_n_u8(15)));
  *high = widen(vshrq_n_u8(bytes, 4));
}
static inline void istore_i8(int8_t* p, I v) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(v.q[0]), vqmovn_s32(v.q[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(v.q[2]), vqmovn_s32(v.q[3]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
static inline I iadd(I a, I b) {
  STOKE_QUARTERS a.q[i] = vaddq_s32(a.q[i], b.q[i]);
  return a;
}
static inline I isub(I a, I b) {
  STOKE_QUARTERS a.q[i] = vsubq_s32(a.q[i], b.q[i]);
  return a;
}
template <int kBits>
static inline I ishift_left(I a) {
  STOKE_QUARTERS a.q[i] = vshlq_n_s32(a.q[i], kBits);
  return a;
}
static inline int32_t isum(I v) { return vaddvq_s32(vaddq_s32(vaddq_s32(v.q[0], v.q[1]), vaddq_s32(v.q[2], v.q[3]))); }
static inline I vtoi(V v) {
  I r;
  STOKE_QUARTERS r.q[i] = vcvtnq_s32_f32(v.q[i]);
  return r;
}
static inline V vfromi(I v) {
  V r;
  STOKE_QUARTERS r.q[i] = vcvtq_f32_s32(v.q[i]);
  return r;
}
static inline V vpow2(I n) {
  V r;
  STOKE_QUARTERS r.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.q[i], vdupq_n_s32(127)), 23));
  return r;
}

#undef STOKE_QUARTERS

using R = float32x4_t;
constexpr int kRegLanes = 4;
constexpr int kMicroTokens = 6;  // 24 accumulators, 4 rows, 1 token
static inline R rload(const float* p) { return vld1q_f32(p); }
static inline void rstore(float* p, R v) { vst1q_f32(p, v); }
static inline R rzero() { return vdupq_n_f32(0.0f); }
static inline R rfma(R a, R b, R c) { return vfmaq_f32(c, a, b); }
static inline void vsum4(const float* v, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = vsum(vload(v + 16 * i));
}

}  // namespace stoke::kernels::STOKE_ISA
