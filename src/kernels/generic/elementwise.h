// Norms, activations, softmax and rotary embedding over rows of FP32. Written once, compiled once per instruction set.
//
// Sums run in sixteen lanes (lane l takes elements l, l + 16, ...) whose tail reads zeros, then vsum: the bits depend
// on the values only.
#pragma once

#include <cstdint>

#include "kernels/generic/math.h"

namespace stoke::kernels::STOKE_ISA {

// x[i] = f(x[i]) in place.
template <typename F>
static inline void map1(float* x, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) vstore(x + i, f(vload(x + i)));
  if (i < n) vstore_n(x + i, f(vload_n(x + i, static_cast<int>(n - i))), static_cast<int>(n - i));
}

// x[i] = f(x[i], y[i]) in place.
template <typename F>
static inline void map2(float* x, const float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) vstore(x + i, f(vload(x + i), vload(y + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) vstore_n(x + i, f(vload_n(x + i, rest), vload_n(y + i, rest)), rest);
}

static void rms_norm(const float* x, const float* w, int64_t n, float eps, bool plus_one, float* out) {
  V squares = vzero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) squares = vfma(vload(x + i), vload(x + i), squares);
  const int rest = static_cast<int>(n - i);
  if (rest > 0) squares = vfma(vload_n(x + i, rest), vload_n(x + i, rest), squares);
  const V mean = vset1(vsum(squares) / static_cast<float>(n));
  const V inverse = vdiv(vset1(1.0f), vsqrt(vadd(mean, vset1(eps))));
  const V offset = vset1(plus_one ? 1.0f : 0.0f);
  const auto normed = [&](V value, V weight) { return vmul(vmul(value, inverse), vadd(weight, offset)); };
  for (i = 0; i + 16 <= n; i += 16) vstore(out + i, normed(vload(x + i), vload(w + i)));
  if (rest > 0) vstore_n(out + i, normed(vload_n(x + i, rest), vload_n(w + i, rest)), rest);
}

static void add(float* x, const float* y, int64_t n) {
  map2(x, y, n, [](V a, V b) { return vadd(a, b); });
}

static void scale(float* x, float a, int64_t n) {
  map1(x, n, [a](V v) { return vmul(v, vset1(a)); });
}

static void axpy(float* y, const float* x, float a, int64_t n) {
  map2(y, x, n, [a](V sum, V v) { return vfma(vset1(a), v, sum); });
}

static inline V capped(V x, float cap) { return vmul(vset1(cap), vtanh(vdiv(x, vset1(cap)))); }

static void softcap(float* x, float cap, int64_t n) {
  map1(x, n, [cap](V v) { return capped(v, cap); });
}

static float max_of(const float* x, int64_t n) {
  V best = vset1(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) best = vmax(vload(x + i), best);
  float m = vmaxv(best);
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// Entries of -infinity get probability 0. Requires: n >= 1 and a finite maximum.
static void softmax(float* x, int64_t n) {
  const V m = vset1(max_of(x, n));
  V sum = vzero();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const V e = vexp_nonpositive(vsub(vload(x + i), m));
    vstore(x + i, e);
    sum = vadd(sum, e);
  }
  const int rest = static_cast<int>(n - i);
  if (rest > 0) {
    vstore_n(x + i, vexp_nonpositive(vsub(vload_n(x + i, rest), m)), rest);
    sum = vadd(sum, vload_n(x + i, rest));
  }
  const V total = vset1(vsum(sum));
  map1(x, n, [total](V v) { return vdiv(v, total); });
}

static void silu_mul(float* gate, const float* up, int64_t n) {
  map2(gate, up, n, [](V g, V u) { return vmul(vmul(g, vsigmoid(g)), u); });
}

// gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
static void gelu_mul(float* gate, const float* up, int64_t n) {
  map2(gate, up, n, [](V g, V u) {
    const V cubic = vmul(vmul(g, g), g);
    const V t = vtanh(vmul(vset1(0.7978845608f), vfma(vset1(0.044715f), cubic, g)));
    return vmul(vmul(vmul(vset1(0.5f), g), vadd(vset1(1.0f), t)), u);
  });
}

static inline V relu(V x) { return vmax(vzero(), x); }

static void relu_mul(float* gate, const float* up, int64_t n) {
  map2(gate, up, n, [](V g, V u) { return vmul(relu(g), u); });
}

static void drelu_mul(float* gate, const float* up, int64_t n) {
  map2(gate, up, n, [](V g, V u) { return vmul(relu(g), relu(u)); });
}

static void fatrelu_mul(float* gate, const float* up, int64_t n, float threshold) {
  const V least = vset1(threshold);
  map2(gate, up, n, [least](V g, V u) { return vselect_gt(g, least, vmul(g, u), vzero()); });
}

// gpt-oss: the gate is clamped from above, the linear part from both sides and shifted by one.
static void swiglu_oai_mul(float* gate, const float* up, int64_t n, float alpha, float limit) {
  const V high = vset1(limit);
  map2(gate, up, n, [=](V g, V u) {
    const V clamped = vmin(high, g);
    const V linear = vmax(vset1(-limit), vmin(high, u));
    return vmul(vmul(clamped, vsigmoid(vmul(vset1(alpha), clamped))), vadd(linear, vset1(1.0f)));
  });
}

static inline void rotate(float* a, float* b, float cos, float sin) {
  const float x = *a;
  const float y = *b;
  *a = __builtin_fmaf(x, cos, -(y * sin));
  *b = __builtin_fmaf(y, cos, x * sin);
}

static void rope_halves(float* head, const float* cos, const float* sin, int64_t half) {
  int64_t i = 0;
  for (; i + 16 <= half; i += 16) {
    const V x = vload(head + i);
    const V y = vload(head + half + i);
    const V c = vload(cos + i);
    const V s = vload(sin + i);
    vstore(head + i, vfma(x, c, vneg(vmul(y, s))));
    vstore(head + half + i, vfma(y, c, vmul(x, s)));
  }
  for (; i < half; ++i) rotate(head + i, head + half + i, cos[i], sin[i]);
}

static void rope(float* head, const float* cos, const float* sin, int64_t n_rot, bool neox) {
  const int64_t half = n_rot / 2;
  if (neox) return rope_halves(head, cos, sin, half);
  for (int64_t i = 0; i < half; ++i) rotate(head + 2 * i, head + 2 * i + 1, cos[i], sin[i]);
}

}  // namespace stoke::kernels::STOKE_ISA
