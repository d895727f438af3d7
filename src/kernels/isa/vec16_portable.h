// Sixteen FP32 lanes (V) and sixteen 32-bit integer lanes (I): the one vector type all kernels are written in.
//
// Sixteen on every instruction set, so that a reduction has the same shape, and an FP32 sum the same bits, everywhere.
// This file is the slow twin: plain loops, fused multiply-add by std::fma. Its siblings vec16_*.h give the same
// functions with the same results. Semantics: fma is fused; max/min return the second operand if either is NaN;
// conversions round to nearest even; vsum adds lanes as (l, l+8), (l, l+4), (l, l+2), (l, l+1).
// Requires: STOKE_ISA names the enclosing namespace of this translation unit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tensor/half.h"

namespace stoke::kernels::STOKE_ISA {

struct V {
  float x[16];
};
struct I {
  int32_t x[16];
};
// V values that fit the register file: how wide a register block may be.
constexpr int kVRegisters = 4;

#define STOKE_LANES for (int l = 0; l < 16; ++l)

static inline V vload(const float* p) {
  V r;
  std::memcpy(r.x, p, sizeof r.x);
  return r;
}
static inline void vstore(float* p, V v) { std::memcpy(p, v.x, sizeof v.x); }
static inline V vset1(float f) {
  V r;
  STOKE_LANES r.x[l] = f;
  return r;
}
static inline V vzero() { return vset1(0.0f); }
// The first n (0..16) lanes; the others read as zero, or are not written.
static inline V vload_n(const float* p, int n) {
  V r = vzero();
  for (int l = 0; l < n; ++l) r.x[l] = p[l];
  return r;
}
static inline void vstore_n(float* p, V v, int n) {
  for (int l = 0; l < n; ++l) p[l] = v.x[l];
}
static inline V vload_f16(const uint16_t* p) {
  V r;
  STOKE_LANES r.x[l] = half_to_float(p[l]);
  return r;
}
static inline V vload_bf16(const uint16_t* p) {
  V r;
  STOKE_LANES r.x[l] = bfloat_to_float(p[l]);
  return r;
}
static inline void vstore_f16(uint16_t* p, V v) { STOKE_LANES p[l] = float_to_half(v.x[l]); }

static inline V vadd(V a, V b) {
  STOKE_LANES a.x[l] += b.x[l];
  return a;
}
static inline V vsub(V a, V b) {
  STOKE_LANES a.x[l] -= b.x[l];
  return a;
}
static inline V vmul(V a, V b) {
  STOKE_LANES a.x[l] *= b.x[l];
  return a;
}
static inline V vdiv(V a, V b) {
  STOKE_LANES a.x[l] /= b.x[l];
  return a;
}
static inline V vfma(V a, V b, V c) {
  STOKE_LANES c.x[l] = std::fma(a.x[l], b.x[l], c.x[l]);
  return c;
}
static inline V vmax(V a, V b) {
  STOKE_LANES a.x[l] = a.x[l] > b.x[l] ? a.x[l] : b.x[l];
  return a;
}
static inline V vmin(V a, V b) {
  STOKE_LANES a.x[l] = a.x[l] < b.x[l] ? a.x[l] : b.x[l];
  return a;
}
static inline V vsqrt(V a) {
  STOKE_LANES a.x[l] = std::sqrt(a.x[l]);
  return a;
}
static inline V vabs(V a) {
  STOKE_LANES a.x[l] = std::fabs(a.x[l]);
  return a;
}
static inline V vneg(V a) {
  STOKE_LANES a.x[l] = -a.x[l];
  return a;
}
static inline V vround(V a) {
  STOKE_LANES a.x[l] = std::nearbyint(a.x[l]);
  return a;
}
// a > b ? x : y, lane by lane.
static inline V vselect_gt(V a, V b, V x, V y) {
  STOKE_LANES x.x[l] = a.x[l] > b.x[l] ? x.x[l] : y.x[l];
  return x;
}
static inline float vsum(V v) {
  for (int step = 8; step > 0; step /= 2) {
    for (int l = 0; l < step; ++l) v.x[l] += v.x[l + step];
  }
  return v.x[0];
}
static inline float vmaxv(V v) {
  for (int step = 8; step > 0; step /= 2) {
    for (int l = 0; l < step; ++l) v.x[l] = v.x[l] > v.x[l + step] ? v.x[l] : v.x[l + step];
  }
  return v.x[0];
}

// Transposes sixteen vectors in place.
static inline void vtranspose(V* rows) {
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < r; ++c) {
      const float t = rows[r].x[c];
      rows[r].x[c] = rows[c].x[r];
      rows[c].x[r] = t;
    }
  }
}

static inline I iload(const int32_t* p) {
  I r;
  std::memcpy(r.x, p, sizeof r.x);
  return r;
}
static inline void istore(int32_t* p, I v) { std::memcpy(p, v.x, sizeof v.x); }
static inline I iset1(int32_t i) {
  I r;
  STOKE_LANES r.x[l] = i;
  return r;
}
static inline I iload_i8(const int8_t* p) {
  I r;
  STOKE_LANES r.x[l] = p[l];  // NOLINT(bugprone-signed-char-misuse): a number, no character
  return r;
}
// Saturates to [-128, 127].
static inline void istore_i8(int8_t* p, I v) {
  STOKE_LANES p[l] = static_cast<int8_t>(v.x[l] < -128 ? -128 : v.x[l] > 127 ? 127 : v.x[l]);
}
static inline I iadd(I a, I b) {
  STOKE_LANES a.x[l] += b.x[l];
  return a;
}
static inline I isub(I a, I b) {
  STOKE_LANES a.x[l] -= b.x[l];
  return a;
}
template <int kBits>
static inline I ishift_left(I a) {
  STOKE_LANES a.x[l] = static_cast<int32_t>(static_cast<uint32_t>(a.x[l]) << kBits);
  return a;
}
static inline int32_t isum(I v) {
  int32_t s = 0;
  STOKE_LANES s += v.x[l];
  return s;
}
// Nearest even; what no integer can hold (NaN too) becomes INT32_MIN, as x86 does.
static inline int32_t to_int(float f) {
  return std::fabs(f) < 2147483648.0f ? static_cast<int32_t>(std::nearbyint(f)) : INT32_MIN;
}
static inline I vtoi(V v) {
  I r;
  STOKE_LANES r.x[l] = to_int(v.x[l]);
  return r;
}
static inline V vfromi(I v) {
  V r;
  STOKE_LANES r.x[l] = static_cast<float>(v.x[l]);
  return r;
}
// 2^n. Requires: -126 <= n <= 127.
static inline V vpow2(I n) {
  V r;
  STOKE_LANES r.x[l] = std::bit_cast<float>((n.x[l] + 127) << 23);
  return r;
}

#undef STOKE_LANES

// One hardware register of lanes, for kernels that count registers: V is 16 / kRegLanes of them.
// kMicroTokens: the register block of float products is 4 rows times this many tokens.
using R = V;
constexpr int kRegLanes = 16;
constexpr int kMicroTokens = 2;
static inline R rload(const float* p) { return vload(p); }
static inline void rstore(float* p, R v) { vstore(p, v); }
static inline R rzero() { return vzero(); }
static inline R rfma(R a, R b, R c) { return vfma(a, b, c); }
// out[i] = vsum of the i-th of four vectors, stored one after the other.
static inline void vsum4(const float* v, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = vsum(vload(v + 16 * i));
}

}  // namespace stoke::kernels::STOKE_ISA
