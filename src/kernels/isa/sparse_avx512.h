// Scattered rows with AVX-512: readers of the down types that stores use, and up rows at the speed of memory.
//
// A block of four bits: the sixteen values that its scale allows are computed at once, and a permute looks every
// element's up: seven instructions for 32 elements, where unpacking to integers takes twelve.
#pragma once

#include <immintrin.h>

#include "kernels/isa/gemv_avx512.h"

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

// Fields of sixteen blocks that lie anywhere; the twin of Lanes.
struct ScatteredLanes {
  __m512i low, high;  // addresses
  __m512i u32(int offset) const {
    const auto* base = reinterpret_cast<const char*>(static_cast<intptr_t>(offset));
    const __m256i a = _mm512_i64gather_epi32(low, base, 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), _mm512_i64gather_epi32(high, base, 1), 1);
  }
};

static inline ScatteredLanes lanes_at(const ScatteredLanes& lanes, size_t bytes) {
  const __m512i more = _mm512_set1_epi64(static_cast<int64_t>(bytes));
  return {_mm512_add_epi64(lanes.low, more), _mm512_add_epi64(lanes.high, more)};
}

// Rows that are read in turns, a stretch at a time, while the same stretches of as many rows to come are asked for:
// 15 GB/s where row after row gave 12.5 (two threads, 2304 bytes a row; a plain read in order: 30).
constexpr int kRowsAhead = 4;

// Up to sixteen rows: whole stretches, the rest side by side. rows: (16). ahead: (16) the row to be asked for while row
// r is read.
template <typename Block>
static inline V gather_tile(const std::byte* const* rows, int count, const std::byte* const* ahead, const ActView& x,
                            int32_t* sums) {
  constexpr int64_t kBlocks = kStretch / BlockTraits<Block>::kElems;
  constexpr auto kBytes = static_cast<size_t>(kBlocks) * sizeof(Block);
  constexpr auto kRoom = static_cast<int64_t>(kScratchFixedBytes / sizeof(int32_t)) / kStretchSums<Block>;
  const int64_t stretches = x.k / kStretch < kRoom ? x.k / kStretch : kRoom;
  for (int first = 0; first < count; first += kRowsAhead) {
    for (int64_t s = 0; s < stretches; ++s) {
      for (int r = first; r < first + kRowsAhead; ++r) {
        const Block* blocks = reinterpret_cast<const Block*>(rows[r]) + s * kBlocks;
        prefetch<kBytes>(reinterpret_cast<const uint8_t*>(ahead[r]) + static_cast<size_t>(s) * kBytes);
        store_sums<Block>(dot_stretch<Block>(blocks, x.q + s * kStretch), r, sums + s * kStretchSums<Block>);
      }
    }
  }
  V acc = vzero();
  const ScatteredLanes lanes{_mm512_loadu_si512(rows), _mm512_loadu_si512(rows + 8)};
  for (int64_t s = 0; s < stretches; ++s) {
    acc =
        add_stretch<Block>(lanes_at(lanes, static_cast<size_t>(s) * kBytes), x, s, sums + s * kStretchSums<Block>, acc);
  }
  return add_blocks<Block>(rows, x, stretches * kBlocks, x.k / BlockTraits<Block>::kElems, acc);
}

template <typename Block>
static void gather_avx512(const GatherArgs& a) {
  auto* sums = static_cast<int32_t*>(a.scratch);
  auto row = [&](int64_t j) { return a.rows[j < a.count ? j : a.count - 1]; };
  const std::byte* tile[kRowTile + kRowsAhead];
  const int64_t bytes = a.x.k / BlockTraits<Block>::kElems * static_cast<int64_t>(sizeof(Block));
  for (int64_t j = 0; j < kRowsAhead && j < a.count; ++j) prefetch_bytes(a.rows[j], bytes);
  for (int64_t j = 0; j < a.count; j += kRowTile) {
    const int count = static_cast<int>(a.count - j < kRowTile ? a.count - j : kRowTile);
    for (int64_t r = 0; r < kRowTile + kRowsAhead; ++r) tile[r] = row(j + r);
    vstore_n(a.y + j, gather_tile<Block>(tile, count, tile + kRowsAhead, a.x, sums), count);
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_GATHER gather_avx512
