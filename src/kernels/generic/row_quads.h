// The block types, kLanes rows side by side: codes as quads (vectors of one dword a row), scales as vectors of one
// float a row. rows(r) is where row r's block begins; layouts are those of tensor/blocks.h. See row_lanes.h.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// ---- codes: begin<S> is called for the 32 elements of every S ascending, then quad<S, J> gives elements
// [32 S + 4 J, + 4) of each row ----

// Sixteen bytes of nibbles: quads of low ones first.
template <int J>
static inline W nibble_quad(const W* raw) {
  return w_bits < J < 4 ? 0 : 4 > (raw[J % 4], 15);
}

template <typename Block>
struct Quads;

template <typename Block>
struct PlainNibbles {
  W raw[4];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    load_quads(rows, offsetof(Block, qs), raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return nibble_quad<J>(raw);
  }
};
template <>
struct Quads<BlockQ4_0> : PlainNibbles<BlockQ4_0> {};
template <>
struct Quads<BlockQ4_1> : PlainNibbles<BlockQ4_1> {};

template <typename Block>
struct FiveBits {
  W raw[4], high;
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    load_quads(rows, offsetof(Block, qs), raw);
    high = load_words(rows, offsetof(Block, qh));
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_or(nibble_quad<J>(raw), w_sixteens<J>(high));
  }
};
template <>
struct Quads<BlockQ5_0> : FiveBits<BlockQ5_0> {};
template <>
struct Quads<BlockQ5_1> : FiveBits<BlockQ5_1> {};

// 32 bytes of each row.
static inline void load_bytes(const auto& rows, size_t at, W* raw) {
  load_quads(rows, at, raw);
  load_quads(rows, at + 16, raw + 4);
}

template <>
struct Quads<BlockQ8_0> {
  W raw[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    load_bytes(rows, offsetof(BlockQ8_0, qs), raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return raw[J];
  }
};

template <>
struct Quads<BlockIQ4_NL> : PlainNibbles<BlockIQ4_NL> {
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_levels(nibble_quad<J>(raw), kIQ4Values, 0);
  }
};

template <>
struct Quads<BlockMXFP4> : PlainNibbles<BlockMXFP4> {
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_levels(nibble_quad<J>(raw), kFP4Doubled, BlockTraits<BlockMXFP4>::kOffset);
  }
};

template <>
struct Quads<BlockIQ4_XS> {
  W raw[4];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    load_quads(rows, offsetof(BlockIQ4_XS, qs) + 16 * S, raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_levels(nibble_quad<J>(raw), kIQ4Values, 0);
  }
};

template <>
struct Quads<BlockQ2_K> {
  W raw[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    if constexpr (S % 4 == 0) load_bytes(rows, offsetof(BlockQ2_K, qs) + S / 4 * 32, raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_bits<2 * (S % 4)>(raw[J], 3);
  }
};

template <>
struct Quads<BlockQ3_K> {
  W raw[8], high[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    if constexpr (S == 0) load_bytes(rows, offsetof(BlockQ3_K, hmask), high);
    if constexpr (S % 4 == 0) load_bytes(rows, offsetof(BlockQ3_K, qs) + S / 4 * 32, raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_or(w_bits<2 * (S % 4)>(raw[J], 3), w_bits<S - 2>(high[J], 4));
  }
};

template <>
struct Quads<BlockQ4_K> {
  W raw[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    if constexpr (S % 2 == 0) load_bytes(rows, offsetof(BlockQ4_K, qs) + S / 2 * 32, raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_bits<4 * (S % 2)>(raw[J], 15);
  }
};

template <>
struct Quads<BlockQ5_K> {
  W raw[8], high[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    if constexpr (S == 0) load_bytes(rows, offsetof(BlockQ5_K, qh), high);
    if constexpr (S % 2 == 0) load_bytes(rows, offsetof(BlockQ5_K, qs) + S / 2 * 32, raw);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_or(w_bits<4 * (S % 2)>(raw[J], 15), w_bits<S - 4>(high[J], 16));
  }
};

// Of 128 elements: low nibbles of 64 bytes, then high ones; two bits of each of 32 bytes for every 32.
template <>
struct Quads<BlockQ6_K> {
  W low[2][8], high[8];
  template <int S>
  [[gnu::always_inline]] void begin(const auto& rows) {
    if constexpr (S % 4 != 0) return;
    load_bytes(rows, offsetof(BlockQ6_K, ql) + S / 4 * 64, low[0]);
    load_bytes(rows, offsetof(BlockQ6_K, ql) + S / 4 * 64 + 32, low[1]);
    load_bytes(rows, offsetof(BlockQ6_K, qh) + S / 4 * 32, high);
  }
  template <int S, int J>
  [[gnu::always_inline]] W quad() const {
    return w_or(w_bits<S % 4 / 2 * 4>(low[S % 2][J], 15), w_bits<2 * (S % 4) - 4>(high[J], 48));
  }
};

// ---- scales of one block of each row: d (and m) of every group; the pointer names the type ----

template <typename Block>
[[gnu::always_inline]] static inline void lane_scales(const Block*, const auto& rows, WF* d, WF* m) {
  static_assert(offsetof(Block, d) == 0);
  const Halves h = load_halves(rows, 0);
  d[0] = h.low;
  if constexpr (BlockTraits<Block>::kMin) m[0] = h.high;
}
[[gnu::always_inline]] static inline void lane_scales(const BlockMXFP4*, const auto& rows, WF* d, WF*) {
  d[0] = wf_mxfp4(w_field<0>(load_words(rows, 0), 255));
}

template <int... G>
static inline void q2_scales(std::integer_sequence<int, G...>, W word, WF dd, WF dmin, WF* d, WF* m) {
  ((d[G] = wf_mul(dd, wf_from(w_field<8 * G>(word, 15)))), ...);
  ((m[G] = wf_mul(dmin, wf_from(w_field<8 * G + 4>(word, 15)))), ...);
}
[[gnu::always_inline]] static inline void lane_scales(const BlockQ2_K*, const auto& rows, WF* d, WF* m) {
  const Halves h = load_halves(rows, offsetof(BlockQ2_K, d));
  for (size_t w = 0; w < 4; ++w) {
    q2_scales(std::make_integer_sequence<int, 4>(), load_words(rows, 4 * w), h.low, wf_neg(h.high), d + 4 * w,
              m + 4 * w);
  }
}

template <int... G>
static inline void q3_scales(std::integer_sequence<int, G...>, const W* low, W high, WF dd, WF* d) {
  auto scale = [&]<int kGroup>() {
    const W bits = w_field<8 * (kGroup % 4) + (kGroup < 8 ? 0 : 4)>(low[kGroup / 4 % 2], 15);
    const W top = w_field<8 * (kGroup % 4) + 2 * (kGroup / 4)>(high, 3);
    return wf_from(w_sub(w_or(bits, w_left<4>(top)), w_set1(32)));
  };
  ((d[G] = wf_mul(dd, scale.template operator()<G>())), ...);
}
[[gnu::always_inline]] static inline void lane_scales(const BlockQ3_K*, const auto& rows, WF* d, WF*) {
  constexpr size_t kAt = offsetof(BlockQ3_K, scales);
  const W low[2] = {load_words(rows, kAt), load_words(rows, kAt + 4)};
  // d is the last field: reading two bytes before it stays inside the block.
  const WF dd = load_halves(rows, offsetof(BlockQ3_K, d) - 2).high;
  q3_scales(std::make_integer_sequence<int, 16>(), low, load_words(rows, kAt + 8), dd, d);
}

template <int... G>
static inline void k_lane_scales(std::integer_sequence<int, G...>, const W* s, WF dd, WF dmin, WF* d, WF* m) {
  ((d[G] = wf_mul(dd, wf_from(w_field<8 * G>(s[0], 63)))), ...);
  ((m[G] = wf_mul(dmin, wf_from(w_field<8 * G>(s[1], 63)))), ...);
  auto upper = [](W low, W high) { return wf_from(w_or(low, w_left<4>(high))); };
  ((d[G + 4] = wf_mul(dd, upper(w_field<8 * G>(s[2], 15), w_field<8 * G + 6>(s[0], 3)))), ...);
  ((m[G + 4] = wf_mul(dmin, upper(w_field<8 * G + 4>(s[2], 15), w_field<8 * G + 6>(s[1], 3)))), ...);
}
static inline void k_lane_scales(const auto& rows, WF* d, WF* m) {
  const Halves h = load_halves(rows, 0);
  const W s[3] = {load_words(rows, 4), load_words(rows, 8), load_words(rows, 12)};
  k_lane_scales(std::make_integer_sequence<int, 4>(), s, h.low, wf_neg(h.high), d, m);
}
[[gnu::always_inline]] static inline void lane_scales(const BlockQ4_K*, const auto& rows, WF* d, WF* m) {
  k_lane_scales(rows, d, m);
}
[[gnu::always_inline]] static inline void lane_scales(const BlockQ5_K*, const auto& rows, WF* d, WF* m) {
  k_lane_scales(rows, d, m);
}

[[gnu::always_inline]] static inline void lane_scales(const BlockQ6_K*, const auto& rows, WF* d, WF*) {
  const WF dd = load_halves(rows, offsetof(BlockQ6_K, d) - 2).high;
  for (int w = 0; w < 4; ++w) {
    const W s = load_words(rows, offsetof(BlockQ6_K, scales) + static_cast<size_t>(4 * w));
    d[4 * w] = wf_mul(dd, wf_from(w_signed_byte<0>(s)));
    d[4 * w + 1] = wf_mul(dd, wf_from(w_signed_byte<1>(s)));
    d[4 * w + 2] = wf_mul(dd, wf_from(w_signed_byte<2>(s)));
    d[4 * w + 3] = wf_mul(dd, wf_from(w_signed_byte<3>(s)));
  }
}

template <int... G>
static inline void iq4_scales(std::integer_sequence<int, G...>, W head, W low, WF dd, WF* d) {
  auto scale = [&]<int kGroup>() {
    const W high = w_left<4>(w_field<16 + 2 * kGroup>(head, 3));
    return wf_from(w_sub(w_or(w_field<4 * kGroup>(low, 15), high), w_set1(32)));
  };
  ((d[G] = wf_mul(dd, scale.template operator()<G>())), ...);
}
[[gnu::always_inline]] static inline void lane_scales(const BlockIQ4_XS*, const auto& rows, WF* d, WF*) {
  iq4_scales(std::make_integer_sequence<int, 8>(), load_words(rows, 0), load_words(rows, 4), load_halves(rows, 0).low,
             d);
}

}  // namespace stoke::kernels::STOKE_ISA
