// Searches for the scales of one group of elements; the formats' packing is in quantize.cc and quantize_k.cc.
//
// All take x and positive weights w of n elements, n a multiple of 8, at most 32, and look for the least sum of
// w * (x - value)^2. Sums are kept in eight lanes so that compilers vectorise them without reordering.
// Thread role: any; pure.
#pragma once

#include <cstdint>

namespace stoke::kernels::fit {

// The integers an element may become.
struct Levels {
  float low, high;
};

// value = d * q + m
struct Affine {
  float d = 0, m = 0;
};

// Nearest integer, ties to even. Requires: |v| < 2^22 (larger values are clamped to levels before).
inline float nearest(float v) { return (v + 12582912.0f) - 12582912.0f; }
// NaN becomes the highest level.
inline float clamp_level(float v, Levels l) {
  v = v < l.high ? v : l.high;
  return v > l.low ? v : l.low;
}
inline float level(float v, Levels l) { return nearest(clamp_level(v, l)); }

// The largest magnitude.
float largest(const float* x, int n);

// Weights that favour larger elements: rms(x) + |x|, or 1 where all are zero.
void weigh(const float* x, int n, float* w);

// The scale of value = d * q, q within levels; of either sign, 0 where all elements are zero.
float symmetric(const float* x, const float* w, int n, Levels levels);

// Scale and minimum of value = d * q + m, 0 <= q <= high, d >= 0; m <= 0 where `subtract_only`.
Affine affine(const float* x, const float* w, int n, float high, bool subtract_only);

// q for given scale and minimum.
void assign(const float* x, int n, Affine a, Levels levels, int8_t* q);

// The same for sixteen uneven levels, ascending: symmetric() and assign() with indices of levels.
float symmetric_table(const float* x, const float* w, int n, const int8_t* table);
void assign_table(const float* x, int n, float d, const int8_t* table, uint8_t* index);

}  // namespace stoke::kernels::fit
