// How AVX-512 reads the block types: bytes of two rows a vector, scales of sixteen rows a vector.
//
// Two blocks share a vector, one below, one above.
#pragma once

#include <immintrin.h>

#include "kernels/generic/prefetch.h"
#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

using Bytes = __m512i;  // 32 unsigned bytes of one row below, 32 of another above

static inline Bytes both(const void* a, const void* b) {
  const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256(static_cast<const __m256i*>(a)));
  return _mm512_inserti64x4(low, _mm256_loadu_si256(static_cast<const __m256i*>(b)), 1);
}
// Each row's 16 bytes twice.
static inline Bytes both16(const void* a, const void* b) {
  const __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(a)));
  return _mm512_mask_broadcast_i32x4(low, 0xff00, _mm_loadu_si128(static_cast<const __m128i*>(b)));
}
// 16 packed bytes a row to 32 nibbles: low ones first, then high ones.
static inline Bytes nibbles16(const void* a, const void* b) {
  const __m512i shift = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);
  return _mm512_and_si512(_mm512_srlv_epi32(both16(a, b), shift), _mm512_set1_epi8(15));
}
template <int kShift>
static inline Bytes shift_right(Bytes v) {
  if constexpr (kShift > 0) return _mm512_srli_epi16(v, kShift);
  if constexpr (kShift < 0) return _mm512_slli_epi16(v, -kShift);
  return v;
}
// One bit a byte, bit number kBit, moved to bit kTo.
template <int kBit, int kTo>
static inline Bytes bit_to(Bytes v) {
  return _mm512_and_si512(shift_right<kBit - kTo>(v), _mm512_set1_epi8(1 << kTo));
}

// Byte offsets of sixteen rows that lie `stride` bytes apart.
static inline __m512i row_offsets(size_t stride) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(stride)));
}

// The fields of sixteen blocks, one row a lane.
struct Lanes {
  const uint8_t* base;
  __m512i rows;  // byte offsets of the rows
  __m512i u32(int offset) const { return _mm512_i32gather_epi32(rows, base + offset, 1); }
};
static inline V low_half(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
static inline V high_half(__m512i v) { return low_half(_mm512_srli_epi32(v, 16)); }
static inline V field(__m512i v, int shift, int mask) {
  return _mm512_cvtepi32_ps(
      _mm512_and_si512(_mm512_srli_epi32(v, static_cast<unsigned>(shift)), _mm512_set1_epi32(mask)));
}

// How AVX-512 reads a block type: `sub<S>` gives the bytes u of elements [32 S, 32 S + 32) with value u - kOffset;
// `scales` fills d (and m) for every group, one row a lane.
template <typename Block>
struct Reader;

template <>
struct Reader<BlockQ4_0> {
  static constexpr int kOffset = 8;
  template <int S>
  static Bytes sub(const BlockQ4_0& a, const BlockQ4_0& b) {
    return nibbles16(a.qs, b.qs);
  }
  static void scales(const auto& l, V* d, V*) { d[0] = low_half(l.u32(0)); }
};

template <>
struct Reader<BlockQ4_1> {
  static constexpr int kOffset = 0;
  template <int S>
  static Bytes sub(const BlockQ4_1& a, const BlockQ4_1& b) {
    return nibbles16(a.qs, b.qs);
  }
  static void scales(const auto& l, V* d, V* m) {
    const __m512i both_halves = l.u32(0);
    d[0] = low_half(both_halves);
    m[0] = high_half(both_halves);
  }
};

static inline Bytes add_high_bits(Bytes low, const uint8_t* qh_a, const uint8_t* qh_b) {
  uint32_t a, b;
  std::memcpy(&a, qh_a, 4);
  std::memcpy(&b, qh_b, 4);
  const __mmask64 bits = static_cast<uint64_t>(b) << 32 | a;
  return _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16));
}

template <>
struct Reader<BlockQ5_0> {
  static constexpr int kOffset = 16;
  template <int S>
  static Bytes sub(const BlockQ5_0& a, const BlockQ5_0& b) {
    return add_high_bits(nibbles16(a.qs, b.qs), a.qh, b.qh);
  }
  static void scales(const auto& l, V* d, V*) { d[0] = low_half(l.u32(0)); }
};

template <>
struct Reader<BlockQ5_1> {
  static constexpr int kOffset = 0;
  template <int S>
  static Bytes sub(const BlockQ5_1& a, const BlockQ5_1& b) {
    return add_high_bits(nibbles16(a.qs, b.qs), a.qh, b.qh);
  }
  static void scales(const auto& l, V* d, V* m) {
    const __m512i both_halves = l.u32(0);
    d[0] = low_half(both_halves);
    m[0] = high_half(both_halves);
  }
};

template <>
struct Reader<BlockQ8_0> {
  static constexpr int kOffset = 128;
  template <int S>
  static Bytes sub(const BlockQ8_0& a, const BlockQ8_0& b) {
    return _mm512_xor_si512(both(a.qs, b.qs), _mm512_set1_epi8(-128));
  }
  static void scales(const auto& l, V* d, V*) { d[0] = low_half(l.u32(0)); }
};

template <>
struct Reader<BlockQ2_K> {
  static constexpr int kOffset = 0;
  template <int S>
  static Bytes sub(const BlockQ2_K& a, const BlockQ2_K& b) {
    return _mm512_and_si512(shift_right<2 * (S % 4)>(both(a.qs + S / 4 * 32, b.qs + S / 4 * 32)), _mm512_set1_epi8(3));
  }
  static void scales(const auto& l, V* d, V* m) {
    const __m512i both_halves = l.u32(80);
    const V dd = low_half(both_halves);
    const V dmin = vneg(high_half(both_halves));
    for (int w = 0; w < 4; ++w) {
      const __m512i s = l.u32(4 * w);
      for (int g = 0; g < 4; ++g) {
        d[4 * w + g] = vmul(dd, field(s, 8 * g, 15));
        m[4 * w + g] = vmul(dmin, field(s, 8 * g + 4, 15));
      }
    }
  }
};

template <>
struct Reader<BlockQ3_K> {
  static constexpr int kOffset = 4;
  template <int S>
  static Bytes sub(const BlockQ3_K& a, const BlockQ3_K& b) {
    const Bytes qs = both(a.qs + S / 4 * 32, b.qs + S / 4 * 32);
    const Bytes low = _mm512_and_si512(shift_right<2 * (S % 4)>(qs), _mm512_set1_epi8(3));
    return _mm512_or_si512(low, bit_to<S, 2>(both(a.hmask, b.hmask)));
  }
  static void scales(const auto& l, V* d, V*) {
    const V dd = high_half(l.u32(106));  // d is the last field: reading from 106 stays inside the block
    const __m512i low[2] = {l.u32(96), l.u32(100)};
    const __m512i high = l.u32(104);
    for (int g = 0; g < 16; ++g) {
      const V bits = field(low[g / 4 % 2], 8 * (g % 4) + (g < 8 ? 0 : 4), 15);
      const V top = field(high, 8 * (g % 4) + 2 * (g / 4), 3);
      d[g] = vmul(dd, vsub(vfma(top, vset1(16.0f), bits), vset1(32.0f)));  // small integers: exact
    }
  }
};

static inline void k_scales(const auto& l, V* d, V* m) {
  const __m512i both_halves = l.u32(0);
  const V dd = low_half(both_halves);
  const V dmin = vneg(high_half(both_halves));
  const __m512i s0 = l.u32(4), s1 = l.u32(8), s2 = l.u32(12);
  for (int g = 0; g < 4; ++g) {
    d[g] = vmul(dd, field(s0, 8 * g, 63));
    m[g] = vmul(dmin, field(s1, 8 * g, 63));
    d[g + 4] = vmul(dd, vfma(field(s0, 8 * g + 6, 3), vset1(16.0f), field(s2, 8 * g, 15)));
    m[g + 4] = vmul(dmin, vfma(field(s1, 8 * g + 6, 3), vset1(16.0f), field(s2, 8 * g + 4, 15)));
  }
}

template <>
struct Reader<BlockQ4_K> {
  static constexpr int kOffset = 0;
  template <int S>
  static Bytes sub(const BlockQ4_K& a, const BlockQ4_K& b) {
    return _mm512_and_si512(shift_right<4 * (S % 2)>(both(a.qs + S / 2 * 32, b.qs + S / 2 * 32)), _mm512_set1_epi8(15));
  }
  static void scales(const auto& l, V* d, V* m) { k_scales(l, d, m); }
};

template <>
struct Reader<BlockQ5_K> {
  static constexpr int kOffset = 0;
  template <int S>
  static Bytes sub(const BlockQ5_K& a, const BlockQ5_K& b) {
    const Bytes qs = both(a.qs + S / 2 * 32, b.qs + S / 2 * 32);
    const Bytes low = _mm512_and_si512(shift_right<4 * (S % 2)>(qs), _mm512_set1_epi8(15));
    return _mm512_or_si512(low, bit_to<S, 4>(both(a.qh, b.qh)));
  }
  static void scales(const auto& l, V* d, V* m) { k_scales(l, d, m); }
};

template <>
struct Reader<BlockQ6_K> {
  static constexpr int kOffset = 32;
  template <int S>
  static Bytes sub(const BlockQ6_K& a, const BlockQ6_K& b) {
    const int ql = S / 4 * 64 + S % 2 * 32;
    const Bytes low = shift_right<4 * (S % 4 / 2)>(both(a.ql + ql, b.ql + ql));
    const Bytes qh = both(a.qh + S / 4 * 32, b.qh + S / 4 * 32);
    const Bytes high = _mm512_and_si512(shift_right<2 * (S % 4) - 4>(qh), _mm512_set1_epi8(0x30));
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), high);
  }
  static void scales(const auto& l, V* d, V*) {
    const V dd = high_half(l.u32(206));  // d is the last field: reading from 206 stays inside the block
    for (int w = 0; w < 4; ++w) {
      const __m512i s = l.u32(192 + 4 * w);
      for (int g = 0; g < 4; ++g) {
        const __m512i top = _mm512_slli_epi32(s, static_cast<unsigned>(24 - 8 * g));
        d[4 * w + g] = vmul(dd, _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24)));
      }
    }
  }
};

static inline Bytes levels(Bytes nibbles, const int8_t* table, int offset) {
  const __m128i base =
      _mm_add_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)), _mm_set1_epi8(static_cast<char>(offset)));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(base), nibbles);
}

template <>
struct Reader<BlockIQ4_NL> {
  static constexpr int kOffset = 128;
  template <int S>
  static Bytes sub(const BlockIQ4_NL& a, const BlockIQ4_NL& b) {
    return levels(nibbles16(a.qs, b.qs), kIQ4Values, kOffset);
  }
  static void scales(const auto& l, V* d, V*) { d[0] = low_half(l.u32(0)); }
};

template <>
struct Reader<BlockIQ4_XS> {
  static constexpr int kOffset = 128;
  template <int S>
  static Bytes sub(const BlockIQ4_XS& a, const BlockIQ4_XS& b) {
    return levels(nibbles16(a.qs + 16 * S, b.qs + 16 * S), kIQ4Values, kOffset);
  }
  static void scales(const auto& l, V* d, V*) {
    const __m512i head = l.u32(0);  // d below, scales_h above
    const __m512i low = l.u32(4);
    const V dd = low_half(head);
    for (int g = 0; g < 8; ++g) {
      const V scale = vfma(field(head, 16 + 2 * g, 3), vset1(16.0f), field(low, 4 * g, 15));
      d[g] = vmul(dd, vsub(scale, vset1(32.0f)));
    }
  }
};

template <>
struct Reader<BlockMXFP4> {
  static constexpr int kOffset = 12;
  template <int S>
  static Bytes sub(const BlockMXFP4& a, const BlockMXFP4& b) {
    return levels(nibbles16(a.qs, b.qs), kFP4Doubled, kOffset);
  }
  static void scales(const auto& l, V* d, V*) {
    const __m512i e = _mm512_and_si512(l.u32(0), _mm512_set1_epi32(255));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    d[0] = _mm512_castsi512_ps(_mm512_mask_blend_epi32(_mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2)), normal, tiny));
  }
};

template <size_t kBytes>
static inline void prefetch(const uint8_t* p) {
  for (size_t line = 0; line < kBytes; line += 64) prefetch_far(p + line);
}

}  // namespace stoke::kernels::STOKE_ISA
