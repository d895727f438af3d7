// Super-blocks of 256 elements: groups share two FP16 numbers through small integer scales.
#include <algorithm>
#include <cmath>

#include "kernels/quantize_blocks.h"
#include "kernels/quantize_fit.h"
#include "tensor/half.h"

namespace stoke::kernels {
namespace {

constexpr int kElems = 256;

float ratio(float a, float b) { return b == 0.0f ? 0.0f : a / b; }

// Symmetric groups: d * scale[g] * q.
struct Scaled {
  uint16_t d = 0;
  int8_t scale[16] = {};
  float group_d[16] = {};  // d * scale[g], as a reader computes it
};

// The group scales as integers within `levels`; the largest goes to the outermost level.
Scaled quantize_scales(const float* group_d, int groups, fit::Levels levels) {
  Scaled out;
  float top = 0;
  for (int g = 0; g < groups; ++g) {
    if (std::fabs(group_d[g]) > std::fabs(top)) top = group_d[g];
  }
  out.d = float_to_half(top / levels.low);
  const float d = half_to_float(out.d);
  for (int g = 0; g < groups; ++g) {
    out.scale[g] = static_cast<int8_t>(fit::level(ratio(group_d[g], d), levels));
    out.group_d[g] = d * static_cast<float>(out.scale[g]);
  }
  return out;
}

// Groups of 16 with a scale each.
Scaled symmetric_groups(const float* x, fit::Levels scales, fit::Levels levels, int8_t* q) {
  constexpr int kGroup = 16;
  float group_d[kElems / kGroup];
  float w[kGroup];
  for (int g = 0; g < kElems / kGroup; ++g) {
    fit::weigh(x + g * kGroup, kGroup, w);
    group_d[g] = fit::symmetric(x + g * kGroup, w, kGroup, levels);
  }
  const Scaled s = quantize_scales(group_d, kElems / kGroup, scales);
  for (int g = 0; g < kElems / kGroup; ++g) {
    fit::assign(x + g * kGroup, kGroup, {s.group_d[g], 0}, levels, q + g * kGroup);
  }
  return s;
}

// Groups with a minimum: d * scale[g] * q - dmin * min[g].
struct ScaledMin {
  uint16_t d = 0, dmin = 0;
  uint8_t scale[16] = {}, min[16] = {};
};

ScaledMin affine_groups(const float* x, int group, float scale_high, float high, int8_t* q) {
  const int groups = kElems / group;
  fit::Affine a[16];
  float w[32];
  float top_d = 0, top_m = 0;
  for (int g = 0; g < groups; ++g) {
    fit::weigh(x + g * group, group, w);
    a[g] = fit::affine(x + g * group, w, group, high, true);
    top_d = std::max(top_d, a[g].d);
    top_m = std::max(top_m, -a[g].m);
  }
  ScaledMin out;
  out.d = float_to_half(top_d / scale_high);
  out.dmin = float_to_half(top_m / scale_high);
  const float d = half_to_float(out.d), dmin = half_to_float(out.dmin);
  for (int g = 0; g < groups; ++g) {
    out.scale[g] = static_cast<uint8_t>(fit::level(ratio(a[g].d, d), {0, scale_high}));
    out.min[g] = static_cast<uint8_t>(fit::level(ratio(-a[g].m, dmin), {0, scale_high}));
    const fit::Affine stored{d * static_cast<float>(out.scale[g]), -dmin * static_cast<float>(out.min[g])};
    fit::assign(x + g * group, group, stored, {0, high}, q + g * group);
  }
  return out;
}

// Two-bit parts: four elements a byte, 32 apart, in halves of 128.
void pack_two_bits(const uint8_t* u, uint8_t* out) {
  for (int half = 0; half < 2; ++half) {
    for (int l = 0; l < 32; ++l) {
      uint8_t byte = 0;
      for (int j = 0; j < 4; ++j) byte = static_cast<uint8_t>(byte | (u[half * 128 + j * 32 + l] & 3) << (2 * j));
      out[half * 32 + l] = byte;
    }
  }
}

// Nibbles of Q4_K and Q5_K: two groups of 32 a run of 32 bytes.
void pack_group_nibbles(const int8_t* q, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    for (int l = 0; l < 32; ++l) {
      out[j * 32 + l] = static_cast<uint8_t>((q[j * 64 + l] & 15) | (q[j * 64 + 32 + l] & 15) << 4);
    }
  }
}

// Eight 6-bit scales and minima in twelve bytes.
void pack_six_bits(const ScaledMin& s, uint8_t* out) {
  for (int g = 0; g < 4; ++g) {
    out[g] = static_cast<uint8_t>(s.scale[g] | s.scale[g + 4] >> 4 << 6);
    out[g + 4] = static_cast<uint8_t>(s.min[g] | s.min[g + 4] >> 4 << 6);
    out[g + 8] = static_cast<uint8_t>((s.scale[g + 4] & 15) | (s.min[g + 4] & 15) << 4);
  }
}

}  // namespace

void quantize_block(const float* x, BlockQ2_K& out) {
  int8_t q[kElems];
  const ScaledMin s = affine_groups(x, 16, 15, 3, q);
  out.d = s.d;
  out.dmin = s.dmin;
  for (int g = 0; g < 16; ++g) out.scales[g] = static_cast<uint8_t>(s.scale[g] | s.min[g] << 4);
  uint8_t u[kElems];
  std::copy(q, q + kElems, u);
  pack_two_bits(u, out.qs);
}

void quantize_block(const float* x, BlockQ3_K& out) {
  int8_t q[kElems];
  uint8_t u[kElems];
  const Scaled s = symmetric_groups(x, {-32, 31}, {-4, 3}, q);
  out = {};
  out.d = s.d;
  for (int i = 0; i < kElems; ++i) {
    u[i] = static_cast<uint8_t>(q[i] + 4);
    out.hmask[i % 32] = static_cast<uint8_t>(out.hmask[i % 32] | u[i] >> 2 << (i / 32));
  }
  pack_two_bits(u, out.qs);
  for (int g = 0; g < 16; ++g) {
    const int scale = s.scale[g] + 32;
    out.scales[g % 8] = static_cast<uint8_t>(out.scales[g % 8] | (scale & 15) << (g < 8 ? 0 : 4));
    out.scales[8 + g % 4] = static_cast<uint8_t>(out.scales[8 + g % 4] | scale >> 4 << (2 * (g / 4)));
  }
}

void quantize_block(const float* x, BlockQ4_K& out) {
  int8_t q[kElems];
  const ScaledMin s = affine_groups(x, 32, 63, 15, q);
  out.d = s.d;
  out.dmin = s.dmin;
  pack_six_bits(s, out.scales);
  pack_group_nibbles(q, out.qs);
}

void quantize_block(const float* x, BlockQ5_K& out) {
  int8_t q[kElems];
  const ScaledMin s = affine_groups(x, 32, 63, 31, q);
  out = {};
  out.d = s.d;
  out.dmin = s.dmin;
  pack_six_bits(s, out.scales);
  pack_group_nibbles(q, out.qs);
  for (int i = 0; i < kElems; ++i) out.qh[i % 32] = static_cast<uint8_t>(out.qh[i % 32] | q[i] >> 4 << (i / 32));
}

void quantize_block(const float* x, BlockQ6_K& out) {
  int8_t q[kElems];
  const Scaled s = symmetric_groups(x, {-128, 127}, {-32, 31}, q);
  out = {};
  out.d = s.d;
  std::copy(s.scale, s.scale + 16, out.scales);
  // In halves of 128: element l + 32 j has its low bits in ql[l + 32 (j % 2)], nibble j / 2, its high two in qh[l].
  for (int i = 0; i < kElems; ++i) {
    const int half = i / 128, j = i % 128 / 32, l = i % 32, u = q[i] + 32;
    uint8_t& low = out.ql[half * 64 + j % 2 * 32 + l];
    uint8_t& high = out.qh[half * 32 + l];
    low = static_cast<uint8_t>(low | (u & 15) << (j / 2 * 4));
    high = static_cast<uint8_t>(high | u >> 4 << (2 * j));
  }
}

void quantize_block(const float* x, BlockIQ4_XS& out) {
  constexpr int kGroup = 32, kGroups = kElems / kGroup;
  float group_d[kGroups], w[kGroup];
  for (int g = 0; g < kGroups; ++g) {
    fit::weigh(x + g * kGroup, kGroup, w);
    group_d[g] = fit::symmetric_table(x + g * kGroup, w, kGroup, kIQ4Values);
  }
  const Scaled s = quantize_scales(group_d, kGroups, {-32, 31});
  out = {};
  out.d = s.d;
  for (int g = 0; g < kGroups; ++g) {
    uint8_t index[kGroup];
    fit::assign_table(x + g * kGroup, kGroup, s.group_d[g], kIQ4Values, index);
    for (int j = 0; j < 16; ++j) out.qs[g * 16 + j] = static_cast<uint8_t>(index[j] | index[j + 16] << 4);
    const int scale = s.scale[g] + 32;
    out.scales_l[g / 2] = static_cast<uint8_t>(out.scales_l[g / 2] | (scale & 15) << (4 * (g % 2)));
    out.scales_h = static_cast<uint16_t>(out.scales_h | scale >> 4 << (2 * g));
  }
}

}  // namespace stoke::kernels
