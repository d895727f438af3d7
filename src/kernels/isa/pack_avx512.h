// Packing of panels of rows with AVX-512, for tiles: readers_avx512.h gives the bytes of two rows and the scales of
// sixteen at a time.
#pragma once

#include <immintrin.h>

#include "kernels/isa/readers_avx512.h"
#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

template <typename Block, int S>
static inline void pack_sub(const uint8_t* base, size_t stride, uint8_t* out) {
  constexpr int kTake = Reader<Block>::kOffset - PanelCodes<Block>::kBias;  // readers give u = q + kOffset
  for (size_t r = 0; r < 16; r += r % 4 == 3 ? 5 : 1) {
    const auto& a = *reinterpret_cast<const Block*>(base + r * stride);
    const auto& b = *reinterpret_cast<const Block*>(base + (r + 4) * stride);
    Bytes u = Reader<Block>::template sub<S>(a, b);
    if constexpr (kTake != 0) u = _mm512_sub_epi8(u, _mm512_set1_epi8(static_cast<char>(kTake)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * 32), _mm512_castsi512_si256(u));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + (r + 4) * 32), _mm512_extracti64x4_epi64(u, 1));
  }
}

template <typename Block, int... S>
static inline void pack_subs(std::integer_sequence<int, S...>, const uint8_t* base, size_t stride, uint8_t* out) {
  (pack_sub<Block, S>(base, stride, out + S * 512), ...);
}

template <typename Block>
static void pack_panel_avx512(const PanelSource& source, Panel& panel) {
  if (source.count < kRowTile) return pack_panel<Block>(source, panel);
  using T = BlockTraits<Block>;
  constexpr int kGroups = T::kElems / T::kGroup;
  const size_t stride = source.row_bytes;
  const __m512i offsets = row_offsets(stride);
  constexpr int64_t kEvery = sizeof(Block) < 64 ? static_cast<int64_t>(64 / sizeof(Block)) : 1;  // blocks a line
  const uint8_t* base =
      reinterpret_cast<const uint8_t*>(source.rows) + source.first / T::kElems * static_cast<int64_t>(sizeof(Block));
  for (int64_t i = 0; i < source.elems / T::kElems; ++i, base += sizeof(Block)) {
    // With few tokens packing runs at the speed of memory; the panel packed next holds these columns sixteen rows on.
    if (i % kEvery == 0) {
      for (size_t r = 16; r < 32; ++r) prefetch<sizeof(Block)>(base + r * stride);
    }
    V d[kGroups], m[T::kMin ? kGroups : 1];
    Reader<Block>::scales(Lanes{base, offsets}, d, m);
    for (int g = 0; g < kGroups; ++g) {
      vstore(panel.d + (i * kGroups + g) * kRowTile, d[g]);
      if constexpr (T::kMin) vstore(panel.m + (i * kGroups + g) * kRowTile, m[g]);
    }
    pack_subs<Block>(std::make_integer_sequence<int, T::kElems / 32>(), base, stride, panel.q + i * T::kElems * 16);
  }
}

}  // namespace stoke::kernels::STOKE_ISA

#define STOKE_PACK_PANEL pack_panel_avx512
