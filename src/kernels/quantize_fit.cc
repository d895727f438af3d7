#include "kernels/quantize_fit.h"

#include <cmath>
#include <cstring>
#include <initializer_list>

namespace stoke::kernels::fit {
namespace {

// Four lanes by the compilers' vector types: every processor stoke runs on has them. Two together make the eight of
// every sum, added in a fixed order.
using F4 = float __attribute__((vector_size(16)));

F4 load4(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
F4 all4(float f) { return F4{f, f, f, f}; }
F4 min4(F4 a, F4 b) { return a < b ? a : b; }
F4 max4(F4 a, F4 b) { return a > b ? a : b; }
F4 abs4(F4 a) { return max4(a, -a); }

struct Lanes {
  F4 a = {}, b = {};
  float sum() const {
    const F4 s = a + b;
    return (s[0] + s[2]) + (s[1] + s[3]);
  }
};

F4 level4(F4 v, Levels l) {
  v = max4(min4(v, all4(l.high)), all4(l.low));
  return (v + 12582912.0f) - 12582912.0f;
}

struct Range {
  float low, high;
};

Range range(const float* x, int n) {
  F4 low = load4(x), high = low;
  for (int i = 4; i < n; i += 4) {
    low = min4(load4(x + i), low);
    high = max4(load4(x + i), high);
  }
  Range r{low[0], high[0]};
  for (int l = 1; l < 4; ++l) {
    r.low = low[l] < r.low ? low[l] : r.low;
    r.high = high[l] > r.high ? high[l] : r.high;
  }
  return r;
}

// The element of largest magnitude, with its sign.
float extreme(const float* x, int n) {
  const Range r = range(x, n);
  return -r.low > r.high ? r.low : r.high;
}

float inverse(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// What is needed to solve for d (and m) once every element has its q: sums over w of q, q*q and q*x.
struct Sums {
  float q = 0, qq = 0, qx = 0;
};

struct LaneSums {
  Lanes q, qq, qx;
  void add(const float* x, const float* w, F4 q0, F4 q1) {
    const F4 wq0 = load4(w) * q0, wq1 = load4(w + 4) * q1;
    q.a += wq0;
    q.b += wq1;
    qq.a += wq0 * q0;
    qq.b += wq1 * q1;
    qx.a += wq0 * load4(x);
    qx.b += wq1 * load4(x + 4);
  }
  Sums sums() const { return {q.sum(), qq.sum(), qx.sum()}; }
};

// q = level((x - m) * inverse_d).
Sums sums_for(const float* x, const float* w, int n, float inverse_d, float m, Levels levels) {
  LaneSums sums;
  for (int i = 0; i < n; i += 8) {
    sums.add(x + i, w + i, level4((load4(x + i) - m) * inverse_d, levels),
             level4((load4(x + i + 4) - m) * inverse_d, levels));
  }
  return sums.sums();
}

// The value of the level nearest to v, by counting the midpoints below it.
F4 nearest_value(F4 v, const int8_t* table) {
  F4 q = all4(table[0]);
  for (int k = 1; k < 16; ++k) {
    const F4 middle = all4(0.5f * static_cast<float>(table[k - 1] + table[k]));
    q += v >= middle ? all4(static_cast<float>(table[k] - table[k - 1])) : F4{};
  }
  return q;
}

Sums table_sums(const float* x, const float* w, int n, float inverse_d, const int8_t* table) {
  LaneSums sums;
  for (int i = 0; i < n; i += 8) {
    sums.add(x + i, w + i, nearest_value(load4(x + i) * inverse_d, table),
             nearest_value(load4(x + i + 4) * inverse_d, table));
  }
  return sums.sums();
}

uint8_t nearest_index(float v, const int8_t* table) {
  int low = 0, high = 15;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (2.0f * v < static_cast<float>(table[middle] + table[middle + 1])) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return static_cast<uint8_t>(low);
}

}  // namespace

void weigh(const float* x, int n, float* w) {
  Lanes squares;
  for (int i = 0; i < n; i += 8) {
    squares.a += load4(x + i) * load4(x + i);
    squares.b += load4(x + i + 4) * load4(x + i + 4);
  }
  const float rms = std::sqrt(squares.sum() / static_cast<float>(n));
  for (int i = 0; i < n; i += 4) {
    const F4 weights = rms > 0 ? abs4(load4(x + i)) + rms : all4(1.0f);
    std::memcpy(w + i, &weights, sizeof weights);
  }
}

float largest(const float* x, int n) { return std::fabs(extreme(x, n)); }

float symmetric(const float* x, const float* w, int n, Levels levels) {
  constexpr int kSteps = 9;
  constexpr float kStep = 0.1f;
  const float top = extreme(x, n);
  if (top == 0.0f) return 0.0f;
  // The lower level is the one further out: the largest element goes there, or near it.
  float best = 0, best_d = top / levels.low;
  for (int s = -kSteps; s <= kSteps; ++s) {
    const Sums sums = sums_for(x, w, n, (levels.low + kStep * static_cast<float>(s)) / top, 0, levels);
    // With d = qx / qq the error falls by qx^2 / qq.
    if (sums.qq > 0 && sums.qx * sums.qx > best * sums.qq) {
      best = sums.qx * sums.qx / sums.qq;
      best_d = sums.qx / sums.qq;
    }
  }
  return best_d;
}

Affine affine(const float* x, const float* w, int n, float high, bool subtract_only) {
  constexpr int kSteps = 20;
  constexpr float kStep = 0.1f;
  const Range r = range(x, n);
  float low = r.low;
  const float top = r.high;
  Lanes lanes_w, lanes_wx, lanes_wxx;
  for (int i = 0; i < n; i += 8) {
    const F4 w0 = load4(w + i), w1 = load4(w + i + 4), x0 = load4(x + i), x1 = load4(x + i + 4);
    lanes_w.a += w0;
    lanes_w.b += w1;
    lanes_wx.a += w0 * x0;
    lanes_wx.b += w1 * x1;
    lanes_wxx.a += w0 * x0 * x0;
    lanes_wxx.b += w1 * x1 * x1;
  }
  const float sw = lanes_w.sum(), swx = lanes_wx.sum(), swxx = lanes_wxx.sum();
  if (subtract_only && low > 0) low = 0;
  if (!(top > low)) return {0, low};
  Affine best{(top - low) / high, low};
  float best_error = INFINITY;
  for (int s = -1; s <= kSteps; ++s) {
    // The first candidate covers the range exactly; the others stretch or shrink it by up to one level.
    const float reach = s < 0 ? high : high - 1 + kStep * static_cast<float>(s);
    const Sums sums = sums_for(x, w, n, reach / (top - low), low, {0, high});
    const float determinant = sw * sums.qq - sums.q * sums.q;
    if (!(determinant > 0)) continue;
    Affine a{(sw * sums.qx - swx * sums.q) / determinant, (sums.qq * swx - sums.q * sums.qx) / determinant};
    if (subtract_only && a.m > 0) a = {sums.qx / sums.qq, 0};
    const float error =
        swxx - 2 * (a.d * sums.qx + a.m * swx) + a.d * a.d * sums.qq + 2 * a.d * a.m * sums.q + a.m * a.m * sw;
    if (a.d > 0 && error < best_error) {
      best_error = error;
      best = a;
    }
  }
  return best;
}

void assign(const float* x, int n, Affine a, Levels levels, int8_t* q) {
  const float inverse_d = inverse(a.d);
  for (int i = 0; i < n; i += 4) {
    const F4 v = level4((load4(x + i) - a.m) * inverse_d, levels);
    for (int l = 0; l < 4; ++l) q[i + l] = static_cast<int8_t>(static_cast<int>(v[l]));
  }
}

float symmetric_table(const float* x, const float* w, int n, const int8_t* table) {
  constexpr int kSteps = 5;
  constexpr float kStep = 2.5f;
  const float top = extreme(x, n);
  if (top == 0.0f) return 0.0f;
  float best = 0, best_d = top / static_cast<float>(table[0]);
  // The largest element goes near the outermost level on either side.
  for (const int8_t outer : {table[0], table[15]}) {
    for (int s = -kSteps; s <= kSteps; ++s) {
      const float inverse_d = (static_cast<float>(outer) + kStep * static_cast<float>(s)) / top;
      const Sums sums = table_sums(x, w, n, inverse_d, table);
      if (sums.qx * sums.qx > best * sums.qq) {
        best = sums.qx * sums.qx / sums.qq;
        best_d = sums.qx / sums.qq;
      }
    }
  }
  return best_d;
}

void assign_table(const float* x, int n, float d, const int8_t* table, uint8_t* index) {
  const float inverse_d = inverse(d);
  for (int i = 0; i < n; ++i) index[i] = nearest_index(x[i] * inverse_d, table);
}

}  // namespace stoke::kernels::fit
