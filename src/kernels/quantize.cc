#include "kernels/quantize.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/quantize_blocks.h"
#include "kernels/quantize_fit.h"
#include "tensor/half.h"

namespace stoke::kernels {
namespace {

constexpr int kElems = 32;

// Two elements a byte: the first half of the block in the low nibbles.
void pack_nibbles(const uint8_t* q, uint8_t* out) {
  for (int j = 0; j < kElems / 2; ++j) out[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}

void pack_fifth_bits(const uint8_t* q, uint8_t* out) {
  uint32_t high = 0;
  for (int j = 0; j < kElems; ++j) high |= static_cast<uint32_t>(q[j] >> 4 & 1) << j;
  std::memcpy(out, &high, sizeof high);
}

// The scale as stored, and the block's levels for it counted from zero.
uint16_t symmetric_levels(const float* x, fit::Levels levels, uint8_t* u) {
  float w[kElems];
  int8_t q[kElems];
  fit::weigh(x, kElems, w);
  const uint16_t d = float_to_half(fit::symmetric(x, w, kElems, levels));
  fit::assign(x, kElems, {half_to_float(d), 0}, levels, q);
  for (int j = 0; j < kElems; ++j) u[j] = static_cast<uint8_t>(q[j] - static_cast<int>(levels.low));
  return d;
}

// Scale and minimum as stored, and the levels for them.
void affine_levels(const float* x, float high, uint16_t& d, uint16_t& m, uint8_t* u) {
  float w[kElems];
  int8_t q[kElems];
  fit::weigh(x, kElems, w);
  const fit::Affine a = fit::affine(x, w, kElems, high, false);
  d = float_to_half(a.d);
  m = float_to_half(a.m);
  fit::assign(x, kElems, {half_to_float(d), half_to_float(m)}, {0, high}, q);
  for (int j = 0; j < kElems; ++j) u[j] = static_cast<uint8_t>(q[j]);
}

// Levels of FP4, doubled, ascending; and the code of each.
constexpr int8_t kFP4Ascending[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12};
constexpr uint8_t kFP4Code[16] = {15, 14, 13, 12, 11, 10, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7};

float squared_error(const float* x, float d, const uint8_t* index) {
  float error = 0;
  for (int j = 0; j < kElems; ++j) {
    const float difference = x[j] - d * static_cast<float>(kFP4Ascending[index[j]]);
    error += difference * difference;
  }
  return error;
}

template <typename Block>
void quantize_blocks(const float* x, void* out, int64_t n, int64_t elems) {
  Block* blocks = static_cast<Block*>(out);
  for (int64_t i = 0; i < n / elems; ++i) quantize_block(x + i * elems, blocks[i]);
}

}  // namespace

void quantize_block(const float* x, BlockQ4_0& out) {
  uint8_t u[kElems];
  out.d = symmetric_levels(x, {-8, 7}, u);
  pack_nibbles(u, out.qs);
}

void quantize_block(const float* x, BlockQ4_1& out) {
  uint8_t u[kElems];
  affine_levels(x, 15, out.d, out.m, u);
  pack_nibbles(u, out.qs);
}

void quantize_block(const float* x, BlockQ5_0& out) {
  uint8_t u[kElems];
  out.d = symmetric_levels(x, {-16, 15}, u);
  pack_nibbles(u, out.qs);
  pack_fifth_bits(u, out.qh);
}

void quantize_block(const float* x, BlockQ5_1& out) {
  uint8_t u[kElems];
  uint16_t d = 0, m = 0;
  affine_levels(x, 31, d, m, u);
  out.d = d;
  out.m = m;
  pack_nibbles(u, out.qs);
  pack_fifth_bits(u, out.qh);
}

void quantize_block(const float* x, BlockQ8_0& out) {
  out.d = float_to_half(fit::largest(x, kElems) / 127.0f);
  fit::assign(x, kElems, {half_to_float(out.d), 0}, {-127, 127}, out.qs);
}

void quantize_block(const float* x, BlockIQ4_NL& out) {
  float w[kElems];
  uint8_t index[kElems];
  fit::weigh(x, kElems, w);
  out.d = float_to_half(fit::symmetric_table(x, w, kElems, kIQ4Values));
  fit::assign_table(x, kElems, half_to_float(out.d), kIQ4Values, index);
  pack_nibbles(index, out.qs);
}

void quantize_block(const float* x, BlockMXFP4& out) {
  const float top = fit::largest(x, kElems);
  // The largest level is 6 = 1.5 * 2^2. Its power of two, the one above and the one below are tried.
  int exponent = 0;
  if (std::isfinite(top) && top > 0) exponent = std::ilogb(top) - 2;
  float best = INFINITY;
  out = {};
  for (int e = exponent - 1; e <= exponent + 1; ++e) {
    if (e < -126 || e > 127) continue;
    const float d = std::ldexp(1.0f, e - 1);  // levels are doubled
    uint8_t index[kElems];
    fit::assign_table(x, kElems, d, kFP4Ascending, index);
    const float error = squared_error(x, d, index);
    if (!(error < best)) continue;
    best = error;
    out.e = static_cast<uint8_t>(e + 127);
    for (uint8_t& code : index) code = kFP4Code[code];
    pack_nibbles(index, out.qs);
  }
}

void quantize_row(DType type, const float* x, void* out, int64_t n) {
  const int64_t elems = info(type).block_elems;
  CHECK(n % elems == 0);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, x, sizeof(float) * static_cast<size_t>(n));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(out)[i] = float_to_half(x[i]);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) static_cast<uint16_t*>(out)[i] = float_to_bfloat(x[i]);
      return;
    case DType::kQ4_0:
      return quantize_blocks<BlockQ4_0>(x, out, n, elems);
    case DType::kQ4_1:
      return quantize_blocks<BlockQ4_1>(x, out, n, elems);
    case DType::kQ5_0:
      return quantize_blocks<BlockQ5_0>(x, out, n, elems);
    case DType::kQ5_1:
      return quantize_blocks<BlockQ5_1>(x, out, n, elems);
    case DType::kQ8_0:
      return quantize_blocks<BlockQ8_0>(x, out, n, elems);
    case DType::kQ2_K:
      return quantize_blocks<BlockQ2_K>(x, out, n, elems);
    case DType::kQ3_K:
      return quantize_blocks<BlockQ3_K>(x, out, n, elems);
    case DType::kQ4_K:
      return quantize_blocks<BlockQ4_K>(x, out, n, elems);
    case DType::kQ5_K:
      return quantize_blocks<BlockQ5_K>(x, out, n, elems);
    case DType::kQ6_K:
      return quantize_blocks<BlockQ6_K>(x, out, n, elems);
    case DType::kIQ4_NL:
      return quantize_blocks<BlockIQ4_NL>(x, out, n, elems);
    case DType::kIQ4_XS:
      return quantize_blocks<BlockIQ4_XS>(x, out, n, elems);
    case DType::kMXFP4:
      return quantize_blocks<BlockMXFP4>(x, out, n, elems);
    case DType::kCount:
      CHECK(false);
  }
}

}  // namespace stoke::kernels
