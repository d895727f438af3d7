// Scattered rows: products with one token, and weighted sums. Semantics and order of summation: kernels/sparse.h.
//
// axpy_rows takes four rows at a time through all columns: the sum is loaded and stored once for the four, and there
// are four streams to prefetch. An instruction set may bring readers of its own for some block types
// (STOKE_SPARSE_HEADER).
#pragma once

#include <type_traits>

#include "kernels/generic/prefetch.h"
#include "kernels/sparse.h"

namespace stoke::kernels::STOKE_ISA {

constexpr int kSparseRows = 4;          // rows that axpy_rows takes at a time
constexpr int64_t kSparseAhead = 768;   // bytes that it prefetches ahead in each
constexpr int64_t kSparseScales = 512;  // blocks whose scales are decoded at a time
constexpr int kWideV = kVRegisters >= 32  ? 8
                       : kVRegisters >= 8 ? 4
                                          : 2;  // columns / 16 of add_widened's register block

// How blocks of 32 become FP32: `scales` decodes those of `count` consecutive blocks, `read` gives one block's values.
template <typename Block>
struct BlockReader {
  static void scales(const Block* blocks, int64_t count, float* d, float* m) {
    int8_t q[32];
    for (int64_t i = 0; i < count; ++i) unpack_block(blocks[i], q, d + i, m + i);
  }
  static void read(const Block& block, float d, float m, V* w) {
    int8_t q[32];
    float unused_d, unused_m;
    unpack_block(block, q, &unused_d, &unused_m);
    for (int half = 0; half < 2; ++half) {
      w[half] = vmul(vset1(d), vfromi(iload_i8(q + half * 16)));
      if (BlockTraits<Block>::kMin) w[half] = vadd(w[half], vset1(m));
    }
  }
};

// A block without its scale (and minimum): the levels of 32 codes as floats.
template <typename Block>
constexpr int64_t kCodesAt = BlockTraits<Block>::kMin ? 4 : 2;
template <typename Block>
struct CodeReader {
  static void read(const std::byte* codes, V* out) {
    Block block{};
    std::memcpy(reinterpret_cast<std::byte*>(&block) + kCodesAt<Block>, codes, sizeof(Block) - kCodesAt<Block>);
    int8_t q[32];
    float unused_d, unused_m;
    unpack_block(block, q, &unused_d, &unused_m);
    for (int half = 0; half < 2; ++half) out[half] = vfromi(iload_i8(q + half * 16));
  }
};

static inline void prefetch_bytes(const std::byte* p, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += 64) prefetch_near(p + at);
}

}  // namespace stoke::kernels::STOKE_ISA

#ifdef STOKE_SPARSE_HEADER
#include STOKE_SPARSE_HEADER
#endif

namespace stoke::kernels::STOKE_ISA {

// ---- one kind of row each: `prepare` decodes what [first, last) blocks of 32 share, `read` gives block b ----

template <typename Block>
struct BlockRows {
  struct Row {
    const Block* blocks;
    int64_t first;
    alignas(64) float d[kSparseScales];
    float m[kSparseScales];
  };
  static constexpr int64_t kBytes = sizeof(Block);
  static void prepare(const DownRows& down, int64_t j, int64_t first, int64_t last, Row& row) {
    row.blocks = reinterpret_cast<const Block*>(down.rows[j]);
    row.first = first;
    BlockReader<Block>::scales(row.blocks + first, last - first, row.d, row.m);
  }
  static void read(const Row& row, int64_t b, V* w) {
    const int64_t at = b - row.first;
    BlockReader<Block>::read(row.blocks[b], row.d[at], BlockTraits<Block>::kMin ? row.m[at] : 0.0f, w);
  }
};

template <DType kType>
struct FloatRows {
  struct Row {
    const std::byte* data;
  };
  static constexpr int64_t kBytes = 32 * kFloatBytes<kType>;
  static void prepare(const DownRows& down, int64_t j, int64_t, int64_t, Row& row) { row.data = down.rows[j]; }
  static void read(const Row& row, int64_t b, V* w) {
    for (int half = 0; half < 2; ++half) w[half] = float_weights<kType>(row.data, b * 32 + half * 16);
  }
};

template <typename Block>
struct CodeRows {
  static constexpr bool kMin = BlockTraits<Block>::kMin;
  struct Row {
    const std::byte* codes;
    const uint16_t* scales;
    const uint16_t* mins;
  };
  static constexpr int64_t kBytes = static_cast<int64_t>(sizeof(Block)) - kCodesAt<Block>;
  static void prepare(const DownRows& down, int64_t j, int64_t, int64_t, Row& row) {
    row = {down.rows[j], down.scales[j], kMin ? down.mins[j] : nullptr};
  }
  static void read(const Row& row, int64_t b, V* w) {
    CodeReader<Block>::read(row.codes + b * kBytes, w);
    for (int half = 0; half < 2; ++half) {
      w[half] = vmul(vload_f16(row.scales + b * 32 + half * 16), w[half]);
      if (kMin) w[half] = vadd(w[half], vload_f16(row.mins + b * 32 + half * 16));
    }
  }
};

// ---- sums ----

// Rows [j, j + kRows), blocks [first, last). Asks for the rows that follow meanwhile, at the same place in each.
template <typename Rows, int kRows>
static void axpy_tile(const DownRows& down, const float* h, int64_t j, int64_t first, int64_t last, float* acc) {
  constexpr int64_t kStep = Rows::kBytes < 64 ? 64 / Rows::kBytes : 1;  // blocks between two prefetches
  typename Rows::Row row[kRows];
  V weight[kRows];
  const std::byte* ahead[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    Rows::prepare(down, j + r, first, last, row[r]);
    weight[r] = vset1(h[j + r]);
    ahead[r] = down.rows[j + kRows + r < down.count ? j + kRows + r : j + r];
  }
  for (int64_t step = first; step < last; step += kStep) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) prefetch_bytes(ahead[r] + step * Rows::kBytes, kStep * Rows::kBytes);
    const int64_t end = last < step + kStep ? last : step + kStep;
    for (int64_t b = step; b < end; ++b) {
      V lo = vload(acc + b * 32);
      V hi = vload(acc + b * 32 + 16);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        V w[2];
        Rows::read(row[r], b, w);
        lo = vfma(weight[r], w[0], lo);
        hi = vfma(weight[r], w[1], hi);
      }
      vstore(acc + b * 32, lo);
      vstore(acc + b * 32 + 16, hi);
    }
  }
}

template <typename Rows>
static void axpy_any(const DownRows& down, const float* h, float* acc) {
  const int64_t blocks = down.dim / 32;
  for (int64_t j = 0; j < kSparseRows && j < down.count; ++j) prefetch_bytes(down.rows[j], blocks * Rows::kBytes);
  for (int64_t first = 0; first < blocks; first += kSparseScales) {
    const int64_t last = blocks < first + kSparseScales ? blocks : first + kSparseScales;
    int64_t j = 0;
    for (; j + kSparseRows <= down.count; j += kSparseRows) axpy_tile<Rows, kSparseRows>(down, h, j, first, last, acc);
    for (; j < down.count; ++j) axpy_tile<Rows, 1>(down, h, j, first, last, acc);
  }
}

template <typename Rows>
static void widen_any(const DownRows& down, int64_t first, int64_t n, float* out, int64_t stride) {
  typename Rows::Row row;
  for (int64_t j = 0; j < down.count; ++j) {
    for (int64_t b0 = first / 32; b0 < (first + n) / 32; b0 += kSparseScales) {
      const int64_t end = (first + n) / 32;
      const int64_t b1 = end < b0 + kSparseScales ? end : b0 + kSparseScales;
      Rows::prepare(down, j, b0, b1, row);
      for (int64_t b = b0; b < b1; ++b) {
        V w[2];
        Rows::read(row, b, w);
        vstore(out + j * stride + b * 32 - first, w[0]);
        vstore(out + j * stride + b * 32 - first + 16, w[1]);
      }
    }
  }
}

// Calls fn with a null pointer to the Rows type that reads these rows; false where they are of a type that only
// dequantize_row reads (blocks of 256 and such).
template <typename F>
static bool with_rows(const DownRows& down, F&& fn) {
  const bool codes = down.encoding == DownEncoding::kCodes;
  auto blocks = [&](auto* tag) {
    using Block = std::remove_pointer_t<decltype(tag)>;
    if (codes) {
      fn(static_cast<CodeRows<Block>*>(nullptr));
    } else {
      fn(static_cast<BlockRows<Block>*>(nullptr));
    }
    return true;
  };
  auto floats = [&](auto* rows) {
    fn(rows);
    return true;
  };
  switch (down.type) {
    case DType::kF32:
      return floats(static_cast<FloatRows<DType::kF32>*>(nullptr));
    case DType::kF16:
      return floats(static_cast<FloatRows<DType::kF16>*>(nullptr));
    case DType::kBF16:
      return floats(static_cast<FloatRows<DType::kBF16>*>(nullptr));
    case DType::kQ4_0:
      return blocks(static_cast<BlockQ4_0*>(nullptr));
    case DType::kQ4_1:
      return blocks(static_cast<BlockQ4_1*>(nullptr));
    case DType::kQ5_0:
      return blocks(static_cast<BlockQ5_0*>(nullptr));
    case DType::kQ5_1:
      return blocks(static_cast<BlockQ5_1*>(nullptr));
    case DType::kQ8_0:
      return blocks(static_cast<BlockQ8_0*>(nullptr));
    case DType::kIQ4_NL:
      return blocks(static_cast<BlockIQ4_NL*>(nullptr));
    default:
      return false;
  }
}

static void axpy_rows(const DownRows& down, const float* h, float* acc, void* scratch) {
  const bool done = with_rows(down, [&](auto* tag) { axpy_any<std::remove_pointer_t<decltype(tag)>>(down, h, acc); });
  if (done) return;
  constexpr int64_t kPart = 8192;
  auto* w = static_cast<float*>(scratch);
  const DTypeInfo& type = info(down.type);
  for (int64_t first = 0; first < down.dim; first += kPart) {
    const int64_t n = down.dim - first < kPart ? down.dim - first : kPart;
    const size_t at = static_cast<size_t>(first / type.block_elems) * type.block_bytes;
    for (int64_t j = 0; j < down.count; ++j) {
      dequantize_row(down.type, down.rows[j] + at, w, n);
      axpy(acc + first, w, h[j], n);
    }
  }
}

static void widen_rows(const DownRows& down, int64_t first, int64_t n, float* out, int64_t stride) {
  const bool done =
      with_rows(down, [&](auto* tag) { widen_any<std::remove_pointer_t<decltype(tag)>>(down, first, n, out, stride); });
  if (done) return;
  const DTypeInfo& type = info(down.type);
  const size_t at = static_cast<size_t>(first / type.block_elems) * type.block_bytes;
  for (int64_t j = 0; j < down.count; ++j) dequantize_row(down.type, down.rows[j] + at, out + j * stride, n);
}

template <int kV>
static inline void add_widened_tile(const float* w, int64_t stride, const uint8_t* index, const float* h, int64_t count,
                                    float* out) {
  V sum[kV];
#pragma GCC unroll 8
  for (int v = 0; v < kV; ++v) sum[v] = vzero();
  for (int64_t j = 0; j < count; ++j) {
    const float* row = w + index[j] * stride;
    const V weight = vset1(h[j]);
#pragma GCC unroll 8
    for (int v = 0; v < kV; ++v) sum[v] = vfma(weight, vload(row + v * 16), sum[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kV; ++v) vstore(out + v * 16, vadd(vload(out + v * 16), sum[v]));
}

static void add_widened(const float* w, int64_t stride, int64_t n, const uint8_t* index, const float* h, int64_t count,
                        float* out) {
  int64_t d = 0;
  for (; d + kWideV * 16 <= n; d += kWideV * 16) add_widened_tile<kWideV>(w + d, stride, index, h, count, out + d);
  for (; d < n; d += 16) add_widened_tile<1>(w + d, stride, index, h, count, out + d);
}

// ---- products ----

#ifndef STOKE_GATHER
template <typename Block>
static void gather_generic(const GatherArgs& a) {
  const int64_t blocks = a.x.k / BlockTraits<Block>::kElems;
  const std::byte* tile[kRowTile];
  for (int64_t j = 0; j < a.count; j += kRowTile) {
    const int count = static_cast<int>(a.count - j < kRowTile ? a.count - j : kRowTile);
    for (int r = 0; r < kRowTile; ++r) tile[r] = a.rows[j + (r < count ? r : count - 1)];
    vstore_n(a.y + j, add_blocks<Block>(tile, a.x, 0, blocks, vzero()), count);
  }
}
#define STOKE_GATHER gather_generic
#endif

static void gather_dot(const GatherArgs& a) {
  if (!is_float(a.type)) {
    with_block_type(a.type,
                    [&](auto* tag) { STOKE_GATHER<std::remove_const_t<std::remove_pointer_t<decltype(tag)>>>(a); });
    return;
  }
  const size_t bytes = row_bytes(a.type, a.x.k);
  for (int64_t j = 0; j < a.count; ++j) {
    if (j + 1 < a.count) {
      prefetch_bytes(a.rows[j + 1], static_cast<int64_t>(bytes < 4096 ? bytes : 4096));
    }
    matmul_float(
        {.w = {a.type, {0, 1}, a.x.k, bytes, a.rows[j]}, .x = a.x, .y = a.y + j, .y_stride = 1, .scratch = a.scratch});
  }
}

static constexpr SparseKernels kSparse = {gather_dot, axpy_rows, widen_rows, add_widened};

}  // namespace stoke::kernels::STOKE_ISA
