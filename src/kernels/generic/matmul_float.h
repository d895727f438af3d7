// y = W x for F32, F16 and BF16 weights with FP32 activations.
//
// Every output is one chain of sixteen-lane FMAs over k ascending, its lanes added by vsum (kernels.h); all paths here
// keep that chain, so they give the same bits. One token: rows are streamed. More: a tile of rows is widened chunk by
// chunk of k and multiplied with all tokens by a register-blocked dot product; the chains' sixteen lanes wait in
// memory between chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/generic/prefetch.h"
#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

constexpr int kFloatRows = 4;           // rows of the register block
constexpr int64_t kFloatTileRows = 64;  // rows widened at a time
constexpr int64_t kFloatChunk = 1024;   // columns widened at a time
constexpr int64_t kFloatTokens = 132;   // tokens whose accumulators wait in scratch
constexpr int64_t kFloatAhead = 8;      // steps of sixteen columns that weights are prefetched ahead
constexpr int64_t kFloatWeightsFloats = kFloatTileRows * kFloatChunk;
constexpr int64_t kFloatXFloats = kMicroTokens * kFloatChunk;
static_assert(kFloatTokens % kMicroTokens == 0);
static_assert(sizeof(float) * (kFloatWeightsFloats + kFloatXFloats + kFloatTokens * kFloatTileRows * 16) <=
              kFloatScratchBytes);

template <DType kType>
constexpr int64_t kFloatBytes = kType == DType::kF32 ? 4 : 2;

// Sixteen weights from element k on.
template <DType kType>
static inline V float_weights(const std::byte* row, int64_t k) {
  if constexpr (kType == DType::kF32) return vload(reinterpret_cast<const float*>(row) + k);
  if constexpr (kType == DType::kF16) return vload_f16(reinterpret_cast<const uint16_t*>(row) + k);
  if constexpr (kType == DType::kBF16) return vload_bf16(reinterpret_cast<const uint16_t*>(row) + k);
}

// The first n weights from element k on; the other lanes are zero.
template <DType kType>
static inline V float_weights_n(const std::byte* row, int64_t k, int64_t n) {
  alignas(64) std::byte lanes[64] = {};
  std::memcpy(lanes, row + k * kFloatBytes<kType>, static_cast<size_t>(n * kFloatBytes<kType>));
  return float_weights<kType>(lanes, 0);
}

// ---- one token ----

// Columns between two looks at where to prefetch, and how many such strides ahead that is.
constexpr int64_t kGemvStride = 256;
constexpr int64_t kGemvAhead = 4;

// Outputs of kRows rows. Prefetches into the kRows rows that follow where `more`.
template <DType kType, int kRows>
static inline void float_gemv_rows(const MatmulArgs& a, const std::byte* w, bool more, float* y) {
  constexpr int64_t kBytes = kFloatBytes<kType>;
  const int64_t cols = a.w.cols, whole = cols / 16 * 16;
  const int64_t row_bytes = static_cast<int64_t>(a.w.row_bytes);
  V acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = vzero();
  for (int64_t k0 = 0; k0 < whole; k0 += kGemvStride) {
    const int64_t k1 = k0 + kGemvStride < whole ? k0 + kGemvStride : whole;
    int64_t ahead = (k0 + kGemvAhead * kGemvStride) * kBytes;
    // Past the end of these rows lie the same offsets of the next ones.
    if (ahead >= row_bytes) ahead = more ? ahead - row_bytes + kRows * row_bytes : k0 * kBytes;
    for (int64_t k = k0; k < k1; k += 16) {
      const V x = vload(a.x.f + k);
      for (int r = 0; r < kRows; ++r) {
        const std::byte* row = w + r * row_bytes;
        acc[r] = vfma(float_weights<kType>(row, k), x, acc[r]);
        if (k * kBytes % 64 == 0) prefetch_near(row + ahead + (k - k0) * kBytes);
      }
    }
  }
  if (whole < cols) {
    const V x = vload_n(a.x.f + whole, static_cast<int>(cols - whole));
    for (int r = 0; r < kRows; ++r) {
      acc[r] = vfma(float_weights_n<kType>(w + r * row_bytes, whole, cols - whole), x, acc[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) y[r] = vsum(acc[r]);
}

template <DType kType>
static void float_gemv(const MatmulArgs& a) {
  const int64_t rows = a.w.rows.size();
  const std::byte* w = a.w.data;
  int64_t row = 0;
  for (; row + kFloatRows <= rows; row += kFloatRows, w += kFloatRows * a.w.row_bytes) {
    float_gemv_rows<kType, kFloatRows>(a, w, row + 2 * kFloatRows <= rows, a.y + row);
  }
  for (; row < rows; ++row, w += a.w.row_bytes) float_gemv_rows<kType, 1>(a, w, false, a.y + row);
}

// ---- many tokens ----

// One thread's scratch, carved.
struct FloatScratch {
  float* w;    // (row groups, steps, kFloatRows, 16): a chunk of the row tile, widened
  float* x;    // (steps, tokens of the group, 16): the same chunk of a group of tokens
  float* acc;  // (token groups, row groups, tokens of the group, kFloatRows, 16)
};

// Widens columns [k, k + n) of `rows` rows. Rows up to a multiple of kFloatRows and columns up to one of 16 are zero.
template <DType kType>
static void float_pack_weights(const MatmulArgs& a, const std::byte* tile, int64_t rows, int64_t k, int64_t n,
                               float* out) {
  const int64_t steps = (n + 15) / 16, padded = (rows + kFloatRows - 1) / kFloatRows * kFloatRows;
  for (int64_t r = 0; r < padded; ++r) {
    const std::byte* row = tile + r * static_cast<int64_t>(a.w.row_bytes);
    float* to = out + (r / kFloatRows * steps * kFloatRows + r % kFloatRows) * 16;
    for (int64_t s = 0; s < steps; ++s, to += kFloatRows * 16) {
      const int64_t left = n - s * 16;
      if (r >= rows) {
        vstore(to, vzero());
      } else if (left < 16) {
        vstore(to, float_weights_n<kType>(row, k + s * 16, left));
      } else {
        vstore(to, float_weights<kType>(row, k + s * 16));
      }
    }
  }
}

// What one register block multiplies: kFloatRows rows with a group of tokens over a chunk of columns.
struct FloatBlock {
  const float* w;  // (steps, kFloatRows, 16)
  const float* x;  // token t at x + t * x_stride while packing, else packed (steps, tokens, 16)
  int64_t x_stride;
  float* pack;  // where the packed tokens go
  int64_t steps;
  float* acc;  // (tokens, kFloatRows, 16), added to; set where `first`
  bool first;
  // A token's chunk that is prefetched beside, sixteen columns a step. Tokens lie a whole row apart, often a multiple
  // of 4 KiB, and no prefetcher follows them (a tenth of a prompt's time).
  const float* ahead;
};

// kPack: the tokens come from their rows, and are copied packed on the way (stores are free beside the FMAs).
template <int kTokens, bool kPack>
static inline void float_block(const FloatBlock& b) {
  for (int part = 0; part < 16; part += kRegLanes) {
    R acc[kTokens][kFloatRows];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kFloatRows; ++r) {
        acc[t][r] = b.first ? rzero() : rload(b.acc + (t * kFloatRows + r) * 16 + part);
      }
    }
    const float* w = b.w + part;
    const float* x = b.x + part;
    float* pack = b.pack + part;
    const float* ahead = b.ahead;
    for (int64_t s = 0; s < b.steps; ++s) {
      R row[kFloatRows];
#pragma GCC unroll 8
      for (int r = 0; r < kFloatRows; ++r) row[r] = rload(w + r * 16);
      if constexpr (!kPack) {
        prefetch_all<kFloatRows * 64>(w + kFloatAhead * kFloatRows * 16);
        prefetch_far(ahead + s * 16);
      }
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const R token = rload(kPack ? x + t * b.x_stride : x + t * 16);
        if constexpr (kPack) rstore(pack + t * 16, token);
#pragma GCC unroll 8
        for (int r = 0; r < kFloatRows; ++r) acc[t][r] = rfma(row[r], token, acc[t][r]);
      }
      w += kFloatRows * 16;
      x += kPack ? 16 : kTokens * 16;
      pack += kTokens * 16;
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r < kFloatRows; ++r) rstore(b.acc + (t * kFloatRows + r) * 16 + part, acc[t][r]);
    }
  }
}

// The last columns, where they are not a multiple of 16: packs by copying with zeros.
static inline void float_pack_tokens(const float* x, int64_t stride, int64_t n, int64_t tokens, float* out) {
  for (int64_t k = 0; k < n; k += 16) {
    for (int64_t t = 0; t < tokens; ++t, out += 16) {
      vstore(out, vload_n(x + t * stride + k, static_cast<int>(n - k < 16 ? n - k : 16)));
    }
  }
}

// All row groups of a tile with one group of kTokens tokens over n columns. `b` describes the first row group, and
// `more` says that another group of tokens follows, which is prefetched meanwhile.
template <int kTokens>
static void float_token_group(FloatBlock b, int64_t n, int64_t row_groups, bool more) {
  const float* next = b.x + kTokens * b.x_stride;
  if (n % 16 == 0) {
    float_block<kTokens, true>(b);
  } else {
    float_pack_tokens(b.x, b.x_stride, n, kTokens, b.pack);
    b.x = b.pack;
    float_block<kTokens, false>(b);
  }
  b.x = b.pack;
  for (int64_t g = 1; g < row_groups; ++g) {
    b.ahead = more && g <= kTokens ? next + (g - 1) * b.x_stride : b.pack;
    b.w += b.steps * kFloatRows * 16;
    b.acc += kTokens * kFloatRows * 16;
    float_block<kTokens, false>(b);
  }
}

static void float_any_token_group(int64_t tokens, const FloatBlock& b, int64_t n, int64_t row_groups, bool more) {
  constexpr int kMost = kMicroTokens;
  switch (tokens) {
    case 1:
      return float_token_group<1>(b, n, row_groups, more);
    case 2:
      return float_token_group<2>(b, n, row_groups, more);
    case 3:
      return float_token_group < kMost < 3 ? kMost : 3 > (b, n, row_groups, more);
    case 4:
      return float_token_group < kMost < 4 ? kMost : 4 > (b, n, row_groups, more);
    case 5:
      return float_token_group < kMost < 5 ? kMost : 5 > (b, n, row_groups, more);
    default:
      return float_token_group<kMost>(b, n, row_groups, more);
  }
}

// Adds the lanes of one tile's accumulators into y.
static void float_reduce(const float* acc, int64_t rows, int64_t tokens, float* y, int64_t y_stride) {
  for (int64_t t0 = 0; t0 < tokens; t0 += kMicroTokens) {
    const int64_t group = tokens - t0 < kMicroTokens ? tokens - t0 : kMicroTokens;
    for (int64_t r = 0; r < rows; r += kFloatRows) {
      const int64_t n = rows - r < kFloatRows ? rows - r : kFloatRows;
      for (int64_t t = 0; t < group; ++t, acc += kFloatRows * 16) {
        float sums[kFloatRows];
        vsum4(acc, sums);
        std::memcpy(y + (t0 + t) * y_stride + r, sums, sizeof(float) * static_cast<size_t>(n));
      }
    }
  }
}

// Rows `r` of the view with tokens [t0, t0 + tokens).
template <DType kType>
static void float_tile(const MatmulArgs& a, RowRange r, int64_t t0, int64_t tokens, const FloatScratch& s) {
  const std::byte* tile = a.w.data + r.begin * static_cast<int64_t>(a.w.row_bytes);
  const int64_t rows = r.size(), row_groups = (rows + kFloatRows - 1) / kFloatRows;
  for (int64_t k = 0; k < a.w.cols; k += kFloatChunk) {
    const int64_t n = a.w.cols - k < kFloatChunk ? a.w.cols - k : kFloatChunk;
    float_pack_weights<kType>(a, tile, rows, k, n, s.w);
    for (int64_t t = 0; t < tokens; t += kMicroTokens) {
      const FloatBlock b{.w = s.w,
                         .x = a.x.f + (t0 + t) * a.x.f_stride + k,
                         .x_stride = a.x.f_stride,
                         .pack = s.x,
                         .steps = (n + 15) / 16,
                         .acc = s.acc + t * row_groups * kFloatRows * 16,
                         .first = k == 0,
                         .ahead = s.x};
      float_any_token_group(tokens - t < kMicroTokens ? tokens - t : kMicroTokens, b, n, row_groups,
                            t + kMicroTokens < tokens);
    }
  }
  float_reduce(s.acc, rows, tokens, a.y + t0 * a.y_stride + r.begin, a.y_stride);
}

template <DType kType>
static void float_gemm(const MatmulArgs& a) {
  float* scratch = static_cast<float*>(a.scratch);
  const FloatScratch s{scratch, scratch + kFloatWeightsFloats, scratch + kFloatWeightsFloats + kFloatXFloats};
  for (int64_t row = 0; row < a.w.rows.size(); row += kFloatTileRows) {
    const int64_t end = row + kFloatTileRows < a.w.rows.size() ? row + kFloatTileRows : a.w.rows.size();
    for (int64_t t = 0; t < a.x.tokens; t += kFloatTokens) {
      float_tile<kType>(a, {row, end}, t, a.x.tokens - t < kFloatTokens ? a.x.tokens - t : kFloatTokens, s);
    }
  }
}

template <DType kType>
static void float_product(const MatmulArgs& a) {
  if (a.x.tokens == 1) return float_gemv<kType>(a);
  float_gemm<kType>(a);
}

// Requires: args.w.type is F32, F16 or BF16; args.scratch holds kFloatScratchBytes where there are two tokens or more.
static void matmul_float(const MatmulArgs& args) {
  switch (args.w.type) {
    case DType::kF32:
      return float_product<DType::kF32>(args);
    case DType::kF16:
      return float_product<DType::kF16>(args);
    default:
      return float_product<DType::kBF16>(args);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
