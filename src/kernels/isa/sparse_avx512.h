// Scattered rows with AVX-512: readers of the down types that stores use.
//
// A block of four bits: the sixteen values that its scale allows are computed at once, and a permute looks every
// element's up: seven instructions for 32 elements, where unpacking to integers takes twelve.
#pragma once

#include <immintrin.h>

#include "kernels/generic/gather_lanes.h"
#include "kernels/isa/readers_avx512.h"

namespace stoke::kernels::STOKE_ISA {

static inline V levels_from(int first) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_cvtepi32_ps(_mm512_add_epi32(lane, _mm512_set1_epi32(first)));
}
// Values of 32 elements packed in 16 bytes: the permute looks at the low four bits of each lane only.
static inline void look_up(const void* nibbles, V table, V* w) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(nibbles)));
  w[0] = _mm512_permutexvar_ps(wide, table);
  w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), table);
}

// The 32 bits at offset 0 of blocks [0, 16), the last of which is `last`.
template <typename Block>
static inline __m512i first_words(const Block* blocks, int last) {
  const __m512i lane =
      _mm512_min_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(last));
  return _mm512_i32gather_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(sizeof(Block))), blocks, 1);
}
template <typename Block>
static inline void scales_avx512(const Block* blocks, int64_t count, float* d, float* m) {
  for (int64_t i = 0; i < count; i += 16) {
    const int last = static_cast<int>(count - i < 16 ? count - i : 16) - 1;
    const __m512i words = first_words(blocks + i, last);
    vstore(d + i, low_half(words));
    if (BlockTraits<Block>::kMin) vstore(m + i, high_half(words));
  }
}

template <>
struct BlockReader<BlockQ4_0> {
  static void scales(const BlockQ4_0* blocks, int64_t count, float* d, float* m) { scales_avx512(blocks, count, d, m); }
  static void read(const BlockQ4_0& block, float d, float, V* w) {
    look_up(block.qs, vmul(vset1(d), levels_from(-8)), w);
  }
};

template <>
struct BlockReader<BlockQ4_1> {
  static void scales(const BlockQ4_1* blocks, int64_t count, float* d, float* m) { scales_avx512(blocks, count, d, m); }
  static void read(const BlockQ4_1& block, float d, float m, V* w) {
    look_up(block.qs, vadd(vmul(vset1(d), levels_from(0)), vset1(m)), w);
  }
};

template <>
struct BlockReader<BlockQ8_0> {
  static void scales(const BlockQ8_0* blocks, int64_t count, float* d, float* m) { scales_avx512(blocks, count, d, m); }
  static void read(const BlockQ8_0& block, float d, float, V* w) {
    w[0] = vmul(vset1(d), vfromi(iload_i8(block.qs)));
    w[1] = vmul(vset1(d), vfromi(iload_i8(block.qs + 16)));
  }
};

template <>
struct CodeReader<BlockQ4_0> {
  static void read(const std::byte* codes, V* out) { look_up(codes, levels_from(-8), out); }
};
template <>
struct CodeReader<BlockQ4_1> {
  static void read(const std::byte* codes, V* out) { look_up(codes, levels_from(0), out); }
};

}  // namespace stoke::kernels::STOKE_ISA
