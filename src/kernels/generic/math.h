// exp, tanh and sigmoid of sixteen lanes. Written once, compiled once per instruction set; see isa/vec16_portable.h.
//
// Polynomials are minimax fits made for this file (relative error below 4e-9 before rounding), so the error of a result
// is that of its last few FP32 operations: below 1.5 ulp for exp. NaN in gives NaN out.
#pragma once

#include <cstdint>

namespace stoke::kernels::STOKE_ISA {

constexpr float kExpLowest = -87.33654f;  // below, the result would be subnormal: zero instead
constexpr float kExpHighest = 88.72283f;  // above, infinity
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e4p-1f;  // short, so that n * kLn2High is exact
constexpr float kLn2Low = 0x1.7f7d1cp-20f;

// e^x = mantissa * 2^n for a finite or NaN x; |x| <= 89.
struct ExpParts {
  V mantissa, n;
};
static inline ExpParts exp_parts(V x) {
  const V n = vround(vmul(x, vset1(kLog2E)));
  V r = vfma(n, vset1(-kLn2High), x);
  r = vfma(n, vset1(-kLn2Low), r);
  V p = vfma(vset1(0x1.6a23dp-10f), r, vset1(0x1.123a2p-7f));
  p = vfma(p, r, vset1(0x1.5558f2p-5f));
  p = vfma(p, r, vset1(0x1.555492p-3f));
  p = vfma(p, r, vset1(0x1.fffffcp-2f));
  p = vfma(p, r, vset1(1.0f));
  return {vfma(p, r, vset1(1.0f)), n};
}

// e^x for x <= 0 (-infinity gives 0; exactly 1 at 0): the one that attention and softmax spend their time in.
static inline V vexp_nonpositive(V x) {
  // The constant comes first: max returns the second operand if either is NaN.
  const ExpParts e = exp_parts(vmax(vset1(kExpLowest), x));
  return vselect_gt(vset1(kExpLowest), x, vzero(), vmul(e.mantissa, vpow2(vtoi(e.n))));
}

// e^x for any x.
static inline V vexp(V x) {
  const ExpParts e = exp_parts(vmin(vset1(kExpHighest), vmax(vset1(kExpLowest), x)));
  // n may be 128, which vpow2 does not reach: two factors.
  const V high = vround(vmul(e.n, vset1(0.5f)));
  const V y = vmul(vmul(e.mantissa, vpow2(vtoi(high))), vpow2(vtoi(vsub(e.n, high))));
  const V saturated = vselect_gt(x, vset1(kExpHighest), vset1(__builtin_inff()), y);
  return vselect_gt(vset1(kExpLowest), x, vzero(), saturated);
}

static inline V vsigmoid(V x) { return vdiv(vset1(1.0f), vadd(vset1(1.0f), vexp(vneg(x)))); }

// |error| < 3 ulp: a polynomial near zero, where 1 - e^-2x would cancel, and (1 - e) / (1 + e) elsewhere.
static inline V vtanh(V x) {
  const V a = vabs(x);
  const V a2 = vmul(a, a);
  V p = vfma(vset1(-0x1.75920cp-8f), a2, vset1(0x1.521576p-6f));
  p = vfma(p, a2, vset1(-0x1.b839d8p-5f));
  p = vfma(p, a2, vset1(0x1.110714p-3f));
  p = vfma(p, a2, vset1(-0x1.555532p-2f));
  const V near = vfma(vmul(p, a2), a, a);
  const V e = vexp_nonpositive(vmul(a, vset1(-2.0f)));
  const V far = vdiv(vsub(vset1(1.0f), e), vadd(vset1(1.0f), e));
  const V magnitude = vselect_gt(a, vset1(0.625f), far, near);
  return vselect_gt(vzero(), x, vneg(magnitude), magnitude);
}

// The same by one value.
static inline float exp_nonpositive(float x) {
  float lanes[16];
  vstore(lanes, vexp_nonpositive(vset1(x)));
  return lanes[0];
}

}  // namespace stoke::kernels::STOKE_ISA
