// Quantised blocks to signed bytes, scales and minima: value = d[g] * q + m[g] for an element of group g.
//
// One function a type, scalar loops that compilers vectorise; the layouts are those of tensor/blocks.h. Types without a
// minimum leave m alone. q fits a signed byte for every type. Groups are info(type).group_elems long.
// Requires: STOKE_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/blocks.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace stoke::kernels::STOKE_ISA {

static inline void unpack_block(const BlockQ4_0& b, int8_t* q, float* d, float*) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>((b.qs[j] & 15) - 8);
    q[j + 16] = static_cast<int8_t>((b.qs[j] >> 4) - 8);
  }
  d[0] = half_to_float(b.d);
}

static inline void unpack_block(const BlockQ4_1& b, int8_t* q, float* d, float* m) {
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>(b.qs[j] & 15);
    q[j + 16] = static_cast<int8_t>(b.qs[j] >> 4);
  }
  d[0] = half_to_float(b.d);
  m[0] = half_to_float(b.m);
}

static inline void unpack_5bit(const uint8_t* qs, const uint8_t* qh, int offset, int8_t* q) {
  uint32_t high;
  std::memcpy(&high, qh, sizeof high);
  for (int j = 0; j < 16; ++j) {
    q[j] = static_cast<int8_t>(static_cast<int>((qs[j] & 15) | (high >> j & 1) << 4) - offset);
    q[j + 16] = static_cast<int8_t>(static_cast<int>(qs[j] >> 4 | (high >> (j + 16) & 1) << 4) - offset);
  }
}

static inline void unpack_block(const BlockQ5_0& b, int8_t* q, float* d, float*) {
  unpack_5bit(b.qs, b.qh, 16, q);
  d[0] = half_to_float(b.d);
}

static inline void unpack_block(const BlockQ5_1& b, int8_t* q, float* d, float* m) {
  unpack_5bit(b.qs, b.qh, 0, q);
  d[0] = half_to_float(b.d);
  m[0] = half_to_float(b.m);
}

static inline void unpack_block(const BlockQ8_0& b, int8_t* q, float* d, float*) {
  std::memcpy(q, b.qs, 32);
  d[0] = half_to_float(b.d);
}

static inline void unpack_block(const BlockQ2_K& b, int8_t* q, float* d, float* m) {
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 4; ++j) {
      for (int l = 0; l < 32; ++l) {
        q[half * 128 + j * 32 + l] = static_cast<int8_t>(b.qs[half * 32 + l] >> (2 * j) & 3);
      }
    }
  }
  const float dd = half_to_float(b.d);
  const float dmin = -half_to_float(b.dmin);
  for (int g = 0; g < 16; ++g) {
    d[g] = dd * static_cast<float>(b.scales[g] & 15);
    m[g] = dmin * static_cast<float>(b.scales[g] >> 4);
  }
}

static inline void unpack_block(const BlockQ3_K& b, int8_t* q, float* d, float*) {
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 4; ++j) {
      for (int l = 0; l < 32; ++l) {
        const int high = b.hmask[l] >> (half * 4 + j) & 1;
        q[half * 128 + j * 32 + l] = static_cast<int8_t>(((b.qs[half * 32 + l] >> (2 * j) & 3) | high << 2) - 4);
      }
    }
  }
  const float dd = half_to_float(b.d);
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? b.scales[g] & 15 : b.scales[g - 8] >> 4;
    const int high = b.scales[8 + g % 4] >> (2 * (g / 4)) & 3;
    d[g] = dd * static_cast<float>((low | high << 4) - 32);
  }
}

// The 6-bit scales and minima of Q4_K and Q5_K: eight of each in twelve bytes.
static inline void unpack_k_scales(const uint8_t* s, uint16_t d16, uint16_t dmin16, float* d, float* m) {
  const float dd = half_to_float(d16);
  const float dmin = -half_to_float(dmin16);
  for (int g = 0; g < 4; ++g) {
    d[g] = dd * static_cast<float>(s[g] & 63);
    m[g] = dmin * static_cast<float>(s[g + 4] & 63);
    d[g + 4] = dd * static_cast<float>((s[g + 8] & 15) | s[g] >> 6 << 4);
    m[g + 4] = dmin * static_cast<float>(s[g + 8] >> 4 | s[g + 4] >> 6 << 4);
  }
}

static inline void unpack_block(const BlockQ4_K& b, int8_t* q, float* d, float* m) {
  for (int j = 0; j < 4; ++j) {
    for (int l = 0; l < 32; ++l) {
      q[j * 64 + l] = static_cast<int8_t>(b.qs[j * 32 + l] & 15);
      q[j * 64 + 32 + l] = static_cast<int8_t>(b.qs[j * 32 + l] >> 4);
    }
  }
  unpack_k_scales(b.scales, b.d, b.dmin, d, m);
}

static inline void unpack_block(const BlockQ5_K& b, int8_t* q, float* d, float* m) {
  for (int j = 0; j < 4; ++j) {
    for (int l = 0; l < 32; ++l) {
      q[j * 64 + l] = static_cast<int8_t>((b.qs[j * 32 + l] & 15) | (b.qh[l] >> (2 * j) & 1) << 4);
      q[j * 64 + 32 + l] = static_cast<int8_t>(b.qs[j * 32 + l] >> 4 | (b.qh[l] >> (2 * j + 1) & 1) << 4);
    }
  }
  unpack_k_scales(b.scales, b.d, b.dmin, d, m);
}

static inline void unpack_block(const BlockQ6_K& b, int8_t* q, float* d, float*) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = b.ql + half * 64;
    const uint8_t* qh = b.qh + half * 32;
    int8_t* out = q + half * 128;
    for (int l = 0; l < 32; ++l) {
      out[l] = static_cast<int8_t>(((ql[l] & 15) | (qh[l] & 3) << 4) - 32);
      out[l + 32] = static_cast<int8_t>(((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4) - 32);
      out[l + 64] = static_cast<int8_t>((ql[l] >> 4 | (qh[l] >> 4 & 3) << 4) - 32);
      out[l + 96] = static_cast<int8_t>((ql[l + 32] >> 4 | (qh[l] >> 6 & 3) << 4) - 32);
    }
  }
  const float dd = half_to_float(b.d);
  for (int g = 0; g < 16; ++g) d[g] = dd * static_cast<float>(b.scales[g]);
}

static inline void unpack_levels(const uint8_t* qs, const int8_t* levels, int8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = levels[qs[j] & 15];
    q[j + 16] = levels[qs[j] >> 4];
  }
}

static inline void unpack_block(const BlockIQ4_NL& b, int8_t* q, float* d, float*) {
  unpack_levels(b.qs, kIQ4Values, q);
  d[0] = half_to_float(b.d);
}

static inline void unpack_block(const BlockIQ4_XS& b, int8_t* q, float* d, float*) {
  const float dd = half_to_float(b.d);
  for (int g = 0; g < 8; ++g) {
    unpack_levels(b.qs + 16 * g, kIQ4Values, q + 32 * g);
    const int scale = (b.scales_l[g / 2] >> (4 * (g % 2)) & 15) | (b.scales_h >> (2 * g) & 3) << 4;
    d[g] = dd * static_cast<float>(scale - 32);
  }
}

// Half of 2^(e - 127), since kFP4Doubled holds doubled levels.
static inline float mxfp4_scale(uint8_t e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

static inline void unpack_block(const BlockMXFP4& b, int8_t* q, float* d, float*) {
  unpack_levels(b.qs, kFP4Doubled, q);
  d[0] = mxfp4_scale(b.e);
}

// Calls fn with a null pointer to the block type of `type`. Requires: a quantised type.
template <typename F>
static inline void with_block_type(DType type, F&& fn) {
  switch (type) {
    case DType::kQ4_0:
      return fn(static_cast<const BlockQ4_0*>(nullptr));
    case DType::kQ4_1:
      return fn(static_cast<const BlockQ4_1*>(nullptr));
    case DType::kQ5_0:
      return fn(static_cast<const BlockQ5_0*>(nullptr));
    case DType::kQ5_1:
      return fn(static_cast<const BlockQ5_1*>(nullptr));
    case DType::kQ8_0:
      return fn(static_cast<const BlockQ8_0*>(nullptr));
    case DType::kQ2_K:
      return fn(static_cast<const BlockQ2_K*>(nullptr));
    case DType::kQ3_K:
      return fn(static_cast<const BlockQ3_K*>(nullptr));
    case DType::kQ4_K:
      return fn(static_cast<const BlockQ4_K*>(nullptr));
    case DType::kQ5_K:
      return fn(static_cast<const BlockQ5_K*>(nullptr));
    case DType::kQ6_K:
      return fn(static_cast<const BlockQ6_K*>(nullptr));
    case DType::kIQ4_NL:
      return fn(static_cast<const BlockIQ4_NL*>(nullptr));
    case DType::kIQ4_XS:
      return fn(static_cast<const BlockIQ4_XS*>(nullptr));
    case DType::kMXFP4:
      return fn(static_cast<const BlockMXFP4*>(nullptr));
    default:
      return;
  }
}

// What a block type is made of, at compile time; the run-time twin is DTypeInfo (matmul_test compares them). Codes are
// unsigned bytes u with value u - kOffset and at most kMost; or signed ones (kSigned), whose size may be 128.
template <int kElemsOf, int kGroupOf, bool kMinOf, int kOffsetOf, int kMostOf>
struct Traits {
  static constexpr int kElems = kElemsOf;
  static constexpr int kGroup = kGroupOf;
  static constexpr bool kMin = kMinOf;
  static constexpr int kOffset = kOffsetOf;
  static constexpr int kMost = kMostOf;
  static constexpr bool kSigned = kMostOf > 127;
};
template <typename Block>
struct BlockTraits;
template <>
struct BlockTraits<BlockQ4_0> : Traits<32, 32, false, 8, 15> {};
template <>
struct BlockTraits<BlockQ4_1> : Traits<32, 32, true, 0, 15> {};
template <>
struct BlockTraits<BlockQ5_0> : Traits<32, 32, false, 16, 31> {};
template <>
struct BlockTraits<BlockQ5_1> : Traits<32, 32, true, 0, 31> {};
template <>
struct BlockTraits<BlockQ8_0> : Traits<32, 32, false, 0, 128> {};
template <>
struct BlockTraits<BlockQ2_K> : Traits<256, 16, true, 0, 3> {};
template <>
struct BlockTraits<BlockQ3_K> : Traits<256, 16, false, 4, 7> {};
template <>
struct BlockTraits<BlockQ4_K> : Traits<256, 32, true, 0, 15> {};
template <>
struct BlockTraits<BlockQ5_K> : Traits<256, 32, true, 0, 31> {};
template <>
struct BlockTraits<BlockQ6_K> : Traits<256, 16, false, 32, 63> {};
template <>
struct BlockTraits<BlockIQ4_NL> : Traits<32, 32, false, 0, 128> {};
template <>
struct BlockTraits<BlockIQ4_XS> : Traits<256, 32, false, 0, 128> {};
template <>
struct BlockTraits<BlockMXFP4> : Traits<32, 32, false, 12, 24> {};

// n: a multiple of the type's block_elems.
template <typename Block>
static void dequantize_blocks(const Block* blocks, float* out, int64_t n) {
  using T = BlockTraits<Block>;
  int8_t q[T::kElems];
  float d[16], m[16] = {};
  for (int64_t i = 0; i < n; i += T::kElems) {
    unpack_block(blocks[i / T::kElems], q, d, m);
    for (int j = 0; j < T::kElems; ++j) {
      const float product = d[j / T::kGroup] * static_cast<float>(q[j]);
      out[i + j] = T::kMin ? product + m[j / T::kGroup] : product;
    }
  }
}

static void dequantize_row(DType type, const void* row, float* out, int64_t n) {
  switch (type) {
    case DType::kF32:
      std::memcpy(out, row, sizeof(float) * static_cast<size_t>(n));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = half_to_float(static_cast<const uint16_t*>(row)[i]);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) out[i] = bfloat_to_float(static_cast<const uint16_t*>(row)[i]);
      return;
    default:
      with_block_type(type, [&](auto* tag) { dequantize_blocks(static_cast<decltype(tag)>(row), out, n); });
  }
}

}  // namespace stoke::kernels::STOKE_ISA
