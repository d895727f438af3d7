// One token, AVX-512 VNNI, in the file's layout at the speed of memory.
//
// Sixteen rows make a tile, one row a lane in the end, in the order of kernels.h. What limits is not arithmetic but how
// memory is asked: the hardware prefetcher follows several long streams at once better than one (shares below are of
// the rate of a plain read, two threads, rows in bytes). Rows longer than a page are read side by side: sixteen
// streams, helped by prefetching a kilobyte ahead in each (6336: 98 %). Shorter rows give it streams too short to
// learn; of these a tile takes four from each quarter of the region at hand, whose rows follow one another: four long
// streams, read in turns, a stretch of 512 elements at a time (2304: 95 %, where one stream gave 77 %). The integer
// sums of a stretch's sixteen groups come into sixteen lanes and rest in scratch; then they are turned, sixteen rows by
// sixteen groups, and scaled. All give the same bits.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/isa/few_avx512.h"
#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr int64_t kStretch = 512;        // elements
static constexpr size_t kLongRow = 4096;        // bytes
static constexpr size_t kAheadInRow = 1024;     // bytes, for long rows
static constexpr size_t kAheadInStream = 1536;  // bytes, for short rows
// Longer streams are better; beyond this there is no gain (and offsets of rows are 32 bits).
static constexpr int64_t kRegionBytes = int64_t{4} << 20;

// Sixteen rows of `stride` bytes: row r begins at base + r / 4 * strip + r % 4 * stride.
struct RowTile {
  const uint8_t* base;
  size_t stride;
  size_t strip;
  const uint8_t* row(size_t r) const { return base + r / 4 * strip + r % 4 * stride; }
  RowTile at(size_t bytes) const { return {base + bytes, stride, strip}; }
  __m512i offsets() const {
    const __m512i lane = _mm512_set_epi32(3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0);
    const __m512i quarter = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(stride))),
                            _mm512_mullo_epi32(quarter, _mm512_set1_epi32(static_cast<int>(strip))));
  }
};

// For block i of sixteen rows: what lies kAheadInRow further on in each.
template <typename Block>
static inline void prefetch_in_rows(const uint8_t* rows, size_t stride, int64_t i) {
  // Short blocks share lines: three Q4_0 blocks are 54 bytes.
  constexpr int64_t kEvery = sizeof(Block) < 64 ? static_cast<int64_t>(64 / sizeof(Block)) : 1;
  if (i % kEvery != 0) return;
  const size_t at = static_cast<size_t>(i) * sizeof(Block) + kAheadInRow;
  // Past a row's end, the row sixteen further on begins.
  const uint8_t* ahead = rows + at + (at >= stride ? 15 * stride : 0);
  for (size_t r = 0; r < 16; ++r) prefetch<sizeof(Block)>(ahead + r * stride);
}

// Adds group S of 32 elements of block `block`, one row a lane.
template <typename Block>
static inline void add_sums(const HalfSums& sums, const ActView& x, int64_t block, int s, const V* d, const V* m,
                            V& acc) {
  using T = BlockTraits<Block>;
  using R = Reader<Block>;
  const int64_t b = block * (T::kElems / 32) + s;
  const V dx = vset1(x.d[b]);
  auto add = [&](__m512i isum, int32_t xsum, float xscaled, int g) {
    if constexpr (R::kOffset != 0) isum = _mm512_sub_epi32(isum, _mm512_set1_epi32(R::kOffset * xsum));
    acc = vfma(vmul(d[g], dx), vfromi(isum), acc);
    if constexpr (T::kMin) acc = vfma(m[g], vset1(xscaled), acc);
  };
  const int32_t* xs = x.sum16 + 2 * b;
  if constexpr (T::kGroup == 32) {
    add(_mm512_add_epi32(sums.low, sums.high), xs[0] + xs[1], x.s32[b], s);
  } else {
    add(sums.low, xs[0], x.s16[2 * b], 2 * s);
    add(sums.high, xs[1], x.s16[2 * b + 1], 2 * s + 1);
  }
}

template <typename Block, int S>
static inline HalfSums dot_rows(const RowTile& rows, __m512i x) {
  auto dot = [&](size_t r) {
    const auto& a = *reinterpret_cast<const Block*>(rows.row(r));
    const auto& b = *reinterpret_cast<const Block*>(rows.row(r + 4));
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), Reader<Block>::template sub<S>(a, b), x);
  };
  return halves(fold4(dot(0), dot(1), dot(2), dot(3)), fold4(dot(8), dot(9), dot(10), dot(11)));
}

template <typename Block, int... S>
static inline void add_subs(std::integer_sequence<int, S...>, const RowTile& rows, const ActView& x, int64_t block,
                            const V* d, const V* m, V& acc) {
  auto half = [&](int s) {
    const int8_t* q = x.q + (block * static_cast<int64_t>(sizeof...(S)) + s) * 32;
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
  };
  (add_sums<Block>(dot_rows<Block, S>(rows, half(S)), x, block, S, d, m, acc), ...);
}

// Sixteen rows side by side, blocks [first, last).
template <typename Block>
static void add_side_by_side(const RowTile& rows, const ActView& x, int64_t first, int64_t last, V& acc) {
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  const __m512i offsets = rows.offsets();
  for (int64_t i = first; i < last; ++i) {
    const RowTile at = rows.at(static_cast<size_t>(i) * sizeof(Block));
    if (rows.stride >= kLongRow) prefetch_in_rows<Block>(rows.base, rows.stride, i);
    V d[kGroups], m[T::kMin ? kGroups : 1];
    Reader<Block>::scales(Lanes{at.base, offsets}, d, m);
    add_subs<Block>(std::make_integer_sequence<int, T::kElems / 32>(), at, x, i, d, m, acc);
  }
}

// Where the sum of a stretch's group g of 32 lies after the fold: pairs are (2 i, 2 i + 1) for types with blocks of 32,
// (sub i of the first block, of the second) for types with blocks of 256.
template <typename Block>
static constexpr int lane_of(int g) {
  if (BlockTraits<Block>::kElems == 32) return g / 8 * 8 + g % 2 * 4 + g % 8 / 2;
  return g % 8 / 4 * 8 + g / 8 * 4 + g % 4;
}

template <typename Block, int I>
static inline __m512i dot_pair(const Block* blocks, const int8_t* x) {
  const __m512i zero = _mm512_setzero_si512();
  if constexpr (BlockTraits<Block>::kElems == 32) {
    const Bytes u = Reader<Block>::template sub<0>(blocks[2 * I], blocks[2 * I + 1]);
    return _mm512_dpbusd_epi32(zero, u, _mm512_loadu_si512(x + 64 * I));
  } else {
    const Bytes u = Reader<Block>::template sub<I>(blocks[0], blocks[1]);
    return _mm512_dpbusd_epi32(zero, u, both(x + 32 * I, x + 256 + 32 * I));
  }
}

template <typename Block>
static inline HalfSums dot_stretch(const Block* b, const int8_t* x) {
  return halves(
      fold4(dot_pair<Block, 0>(b, x), dot_pair<Block, 1>(b, x), dot_pair<Block, 2>(b, x), dot_pair<Block, 3>(b, x)),
      fold4(dot_pair<Block, 4>(b, x), dot_pair<Block, 5>(b, x), dot_pair<Block, 6>(b, x), dot_pair<Block, 7>(b, x)));
}

// Sums of a stretch: (part, row, lane); a part is both halves together, or each half for groups of 16.
template <typename Block>
static constexpr int kParts = 32 / BlockTraits<Block>::kGroup;
template <typename Block>
static constexpr int64_t kStretchSums = kParts<Block> * 256;

template <typename Block>
static inline void store_sums(const HalfSums& dots, int64_t row, int32_t* stretch_sums) {
  int32_t* out = stretch_sums + row * 16;
  if constexpr (kParts<Block> == 1) {
    istore(out, _mm512_add_epi32(dots.low, dots.high));
  } else {
    istore(out, dots.low);
    istore(out + 256, dots.high);
  }
}

template <typename Block>
static void read_rows(const RowTile& rows, const ActView& x, int64_t stretches, int32_t* sums) {
  constexpr int64_t kBlocks = kStretch / BlockTraits<Block>::kElems;
  for (size_t i = 0; i < 4; ++i) {
    for (int64_t s = 0; s < stretches; ++s) {
      for (size_t r = i; r < 16; r += 4) {
        const Block* blocks = reinterpret_cast<const Block*>(rows.row(r)) + s * kBlocks;
        prefetch<kBlocks * sizeof(Block)>(reinterpret_cast<const uint8_t*>(blocks) + kAheadInStream);
        store_sums<Block>(dot_stretch<Block>(blocks, x.q + s * kStretch), static_cast<int64_t>(r),
                          sums + s * kStretchSums<Block>);
      }
    }
  }
}

// Turned to one row a lane: vector l is lane l of what read_rows stored.
static inline void turn(const int32_t* sums, V* lanes) {
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) lanes[r] = _mm512_castsi512_ps(iload(sums + r * 16));
  vtranspose(lanes);
}

// The fields `bytes` further on in the same rows.
static inline Lanes lanes_at(const Lanes& lanes, size_t bytes) { return {lanes.base + bytes, lanes.rows}; }

// `stretch`: the first block of stretch s in each row.
template <typename Block>
static inline V add_stretch(const auto& stretch, const ActView& x, int64_t s, const int32_t* sums, V acc) {
  using T = BlockTraits<Block>;
  constexpr int kSubs = T::kElems / 32;
  constexpr int kGroups = T::kElems / T::kGroup;
  V lanes[kParts<Block>][16];
  for (int part = 0; part < kParts<Block>; ++part) turn(sums + part * 256, lanes[part]);
  V d[kGroups], m[T::kMin ? kGroups : 1];
#pragma GCC unroll 16
  for (int g = 0; g < 16; ++g) {
    if (g % kSubs == 0) Reader<Block>::scales(lanes_at(stretch, static_cast<size_t>(g / kSubs) * sizeof(Block)), d, m);
    const __m512i low = _mm512_castps_si512(lanes[0][lane_of<Block>(g)]);
    const __m512i high =
        kParts<Block> == 1 ? _mm512_setzero_si512() : _mm512_castps_si512(lanes[kParts<Block> - 1][lane_of<Block>(g)]);
    add_sums<Block>({low, high}, x, s * (16 / kSubs) + g / kSubs, g % kSubs, d, m, acc);
  }
  return acc;
}

// Sixteen whole rows, sums in their order.
template <typename Block>
static V gemv_tile(const RowTile& rows, int64_t cols, const ActView& x, int32_t* sums) {
  constexpr int64_t kBlocks = kStretch / BlockTraits<Block>::kElems;
  constexpr auto kRoom = static_cast<int64_t>(kScratchFixedBytes / sizeof(int32_t)) / kStretchSums<Block>;
  const int64_t whole = cols / kStretch < kRoom ? cols / kStretch : kRoom;
  const int64_t stretches = rows.stride >= kLongRow ? 0 : whole;
  V acc = vzero();
  read_rows<Block>(rows, x, stretches, sums);
  const __m512i offsets = rows.offsets();
  for (int64_t s = 0; s < stretches; ++s) {
    const Lanes stretch{rows.base + static_cast<size_t>(s * kBlocks) * sizeof(Block), offsets};
    acc = add_stretch<Block>(stretch, x, s, sums + s * kStretchSums<Block>, acc);
  }
  add_side_by_side<Block>(rows, x, stretches * kBlocks, cols / BlockTraits<Block>::kElems, acc);
  return acc;
}

// `rows` rows, a multiple of sixteen; see at the top.
template <typename Block>
static void gemv_region(const uint8_t* data, int64_t rows, const MatmulArgs& a, float* y) {
  auto* sums = static_cast<int32_t*>(a.scratch);
  const size_t stride = a.w.row_bytes;
  if (stride >= kLongRow) {
    for (int64_t row = 0; row < rows; row += 16) {
      const RowTile tile{data + static_cast<size_t>(row) * stride, stride, 4 * stride};
      vstore(y + row, gemv_tile<Block>(tile, a.w.cols, a.x, sums));
    }
    return;
  }
  const int64_t quarter = rows / 4;
  for (int64_t row = 0; row < quarter; row += 4) {
    const RowTile tile{data + static_cast<size_t>(row) * stride, stride, static_cast<size_t>(quarter) * stride};
    alignas(64) float out[16];
    vstore(out, gemv_tile<Block>(tile, a.w.cols, a.x, sums));
    for (int64_t q = 0; q < 4; ++q) std::memcpy(y + q * quarter + row, out + q * 4, 4 * sizeof(float));
  }
}

// How many of `rows` rows make the next region. Streams whole pages apart would share the first-level cache's sets
// (28 GB/s against 19 to 25 then).
static inline int64_t region_rows(int64_t rows, size_t stride) {
  constexpr size_t kPage = 4096;
  constexpr size_t kApart = 256;
  const int64_t most = (kRegionBytes / static_cast<int64_t>(stride) / kRowTile + 1) * kRowTile;
  int64_t region = rows < most ? rows : most;
  for (; stride < kLongRow && region > kRowTile; region -= kRowTile) {
    const size_t apart = static_cast<size_t>(region / 4) * stride % kPage;
    if (apart >= kApart && apart <= kPage - kApart) break;
  }
  return region;
}

template <typename Block>
static void gemv_avx512(const MatmulArgs& a) {
  const int64_t whole = a.w.rows.size() / kRowTile * kRowTile;
  const auto* data = reinterpret_cast<const uint8_t*>(a.w.data);
  for (int64_t row = 0; row < whole;) {
    const int64_t region = region_rows(whole - row, a.w.row_bytes);
    gemv_region<Block>(data + static_cast<size_t>(row) * a.w.row_bytes, region, a, a.y + row);
    row += region;
  }
  if (whole == a.w.rows.size()) return;
  MatmulArgs rest = a;
  rest.w.rows.begin += whole;
  rest.w.data += static_cast<size_t>(whole) * a.w.row_bytes;
  rest.y += whole;
  gemv<Block>(rest);
}

}  // namespace stoke::kernels::STOKE_ISA
