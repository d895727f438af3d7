// The kernels of kernels/attention.h. Written once, compiled once per instruction set.
//
// Up to kMicroRows rows go through a tile together: scores into a small buffer, softmax, then probabilities times V.
// Both products are the same register-blocked loop, whose outputs are each one chain of FMAs, so blocking changes no
// bit. A tile in F16 that few rows read is widened on the fly; otherwise it is widened to FP32 scratch once.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/generic/elementwise.h"
#include "kernels/generic/kv_tile.h"
#include "kernels/generic/math.h"

namespace stoke::kernels::STOKE_ISA {

constexpr int kMicroRows = 6;

// A matrix whose rows are read sixteen elements at a time, widened to FP32.
struct RowsF32 {
  const float* base;
  int64_t stride;
  inline V load(int64_t row, int64_t vec) const { return vload(base + row * stride + vec * 16); }
};
// `ahead` bytes further on lies what is needed next: decoding is bound by how fast the cache is read from memory, and
// the processor's own prefetching starts anew with every tile.
struct RowsF16 {
  const uint16_t* base;
  int64_t stride;
  int64_t ahead;
  inline V load(int64_t row, int64_t vec) const {
    const uint16_t* at = base + row * stride + vec * 16;
    if (vec % 2 == 0) prefetch(at, ahead);
    return vload_f16(at);
  }
};

struct MicroArgs {
  const float* a;  // (M rows) broadcast side
  int64_t a_stride;
  float* c;  // (M rows)
  int64_t c_stride;
  int64_t k_begin;
  int64_t k_end;
};

// c[m][vec .. vec + N) = (accumulate ? c : 0) + sum over k ascending of a[m][k] * b[k].
template <int M, int N, bool kAccumulate, typename B>
static inline void micro(const MicroArgs& g, const B& b, int64_t vec) {
  V acc[M][N];
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) acc[m][n] = kAccumulate ? vload(g.c + m * g.c_stride + (vec + n) * 16) : vzero();
  }
  for (int64_t k = g.k_begin; k < g.k_end; ++k) {
    V column[N];
    for (int n = 0; n < N; ++n) column[n] = b.load(k, vec + n);
    for (int m = 0; m < M; ++m) {
      const V a = vset1(g.a[m * g.a_stride + k]);
      for (int n = 0; n < N; ++n) acc[m][n] = vfma(a, column[n], acc[m][n]);
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) vstore(g.c + m * g.c_stride + (vec + n) * 16, acc[m][n]);
  }
}

// The same over any range of vectors, in register blocks as wide as the register file allows.
template <int M, bool kAccumulate, typename B>
static inline void product(const MicroArgs& g, const B& b, int64_t vec, int64_t vec_end) {
  constexpr int kWide = kVRegisters < 32 ? 1 : M <= 2 ? 8 : 4;
  for (; vec + kWide <= vec_end; vec += kWide) micro<M, kWide, kAccumulate>(g, b, vec);
  if constexpr (kWide > 4) {
    for (; vec + 4 <= vec_end; vec += 4) micro<M, 4, kAccumulate>(g, b, vec);
  }
  if constexpr (kWide > 2) {
    for (; vec + 2 <= vec_end; vec += 2) micro<M, 2, kAccumulate>(g, b, vec);
  }
  if constexpr (kWide > 1) {
    for (; vec < vec_end; ++vec) micro<M, 1, kAccumulate>(g, b, vec);
  }
}

static inline int64_t clamp_position(int64_t p) { return p < 0 ? 0 : p > kTileTokens ? kTileTokens : p; }

// Positions of a tile that a row sees: [begin, end).
struct Span {
  int64_t begin, end;
};
static inline Span visible(const AttentionBlock& block, int64_t row, int64_t tile_begin) {
  const int64_t p = block.pos + row / block.group;
  const int64_t oldest = block.window > 0 ? p - block.window + 1 : 0;
  return {clamp_position(oldest - tile_begin), clamp_position(p + 1 - tile_begin)};
}

alignas(64) constexpr float kPositions[kTileTokens] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                       16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                                       32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                                       48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

// Raw products of a row to scores, unseen positions to -infinity, over vectors [vec, vec_end). Returns the maximum.
static inline float finish_scores(const AttentionBlock& block, Span seen, float* s, int64_t vec, int64_t vec_end) {
  const V nothing = vset1(-__builtin_inff());
  V best = nothing;
  for (int64_t i = vec; i < vec_end; ++i) {
    V x = vmul(vload(s + i * 16), vset1(block.scale));
    if (block.softcap > 0) x = capped(x, block.softcap);
    if (seen.begin > i * 16 || seen.end < i * 16 + 16) {
      const V p = vload(kPositions + i * 16);
      x = vselect_gt(vset1(static_cast<float>(seen.end)), p, x, nothing);
      x = vselect_gt(vset1(static_cast<float>(seen.begin)), p, nothing, x);
    }
    vstore(s + i * 16, x);
    best = vmax(x, best);
  }
  return vmaxv(best);
}

// The same for a row that sees the whole tile, without a cap: what most of a prefill is.
static inline float finish_whole_scores(float scale, float* s) {
  V x[kTileVecs];
  for (int i = 0; i < kTileVecs; ++i) {
    x[i] = vmul(vload(s + i * 16), vset1(scale));
    vstore(s + i * 16, x[i]);
  }
  return vmaxv(vmax(vmax(x[0], x[1]), vmax(x[2], x[3])));
}

// Scores to exp(score - m); returns sum plus their sixteen-lane sum.
template <int kVecs>
static inline V exponentials(float* s, float m, V sum) {
  V p[kVecs];
  for (int i = 0; i < kVecs; ++i) p[i] = vexp_nonpositive(vsub(vload(s + i * 16), vset1(m)));
  for (int i = 0; i < kVecs; ++i) {
    vstore(s + i * 16, p[i]);
    sum = vadd(sum, p[i]);
  }
  return sum;
}

static inline void rescale(float* values, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i += 16) vstore(values + i, vmul(vload(values + i), vset1(factor)));
}

// M rows from `row` on through one tile; every one of them sees some of it.
template <int M, typename B>
static void micro_block(const AttentionBlock& block, int64_t row, int64_t tile_begin, const B& k, const B& v,
                        const AttentionState& state, float* sums) {
  alignas(64) float s[M * kTileTokens];
  alignas(64) float factor[16] = {};
  const int64_t padded = padded_dim(block.head_dim);
  const int64_t begin = visible(block, row, tile_begin).begin;
  const int64_t end = visible(block, row + M - 1, tile_begin).end;
  const int64_t vec = begin / 16;
  const int64_t vec_end = (end + 15) / 16;
  const bool whole = visible(block, row + M - 1, tile_begin).begin == 0 &&
                     visible(block, row, tile_begin).end == kTileTokens && block.softcap == 0;
  const float* q = block.q + row * block.head_dim;
  product<M, false>({q, block.head_dim, s, kTileTokens, 0, block.head_dim}, k, vec, vec_end);

  for (int m = 0; m < M; ++m) {
    const float tile_max =
        whole ? finish_whole_scores(block.scale, s + m * kTileTokens)
              : finish_scores(block, visible(block, row + m, tile_begin), s + m * kTileTokens, vec, vec_end);
    const float old_max = state.m[row + m];
    state.m[row + m] = tile_max > old_max ? tile_max : old_max;
    factor[m] = old_max - state.m[row + m];
  }
  vstore(factor, vexp_nonpositive(vload(factor)));
  float* acc = state.acc + row * padded;
  for (int m = 0; m < M; ++m) {
    if (factor[m] != 1.0f) rescale(acc + m * padded, padded, factor[m]);
    V sum = vmul(vload(sums + (row + m) * 16), vset1(factor[m]));
    float* scores = s + m * kTileTokens;
    if (whole) {
      sum = exponentials<kTileVecs>(scores, state.m[row + m], sum);
    } else {
      for (int64_t i = vec; i < vec_end; ++i) sum = exponentials<1>(scores + i * 16, state.m[row + m], sum);
    }
    vstore(sums + (row + m) * 16, sum);
  }
  product<M, true>({s, kTileTokens, acc, padded, begin, end}, v, 0, padded / 16);
}

// Rows [row, row_end) through one tile, in micro blocks of even size.
template <typename B>
static void tile_rows(const AttentionBlock& block, int64_t row, int64_t row_end, int64_t tile_begin, const B& k,
                      const B& v, const AttentionState& state, float* sums) {
  while (row < row_end) {
    const int64_t left = row_end - row;
    const int64_t blocks = (left + kMicroRows - 1) / kMicroRows;
    const int64_t m = (left + blocks - 1) / blocks;
    switch (m) {
      case 1:
        micro_block<1>(block, row, tile_begin, k, v, state, sums);
        break;
      case 2:
        micro_block<2>(block, row, tile_begin, k, v, state, sums);
        break;
      case 3:
        micro_block<3>(block, row, tile_begin, k, v, state, sums);
        break;
      case 4:
        micro_block<4>(block, row, tile_begin, k, v, state, sums);
        break;
      case 5:
        micro_block<5>(block, row, tile_begin, k, v, state, sums);
        break;
      default:
        micro_block<6>(block, row, tile_begin, k, v, state, sums);
        break;
    }
    row += m;
  }
}

// Rows of the block that see any of the tile.
static inline Span rows_that_see(const AttentionBlock& block, int64_t tile_begin) {
  const int64_t queries = (block.rows + block.group - 1) / block.group;
  int64_t first = tile_begin - block.pos;
  int64_t end = block.window > 0 ? tile_begin + kTileTokens - 1 + block.window - block.pos : queries;
  first = first < 0 ? 0 : first;
  end = end > queries ? queries : end;
  if (first >= end) return {0, 0};
  return {first * block.group, end * block.group < block.rows ? end * block.group : block.rows};
}

// next: the tile that comes after this one.
static void attend_tile(const AttentionBlock& block, const KvTile& tile, const KvTile& next, int64_t tile_begin,
                        const AttentionState& state, float* sums, float* wide) {
  const Span rows = rows_that_see(block, tile_begin);
  const int64_t dim = block.head_dim;
  const int64_t padded = padded_dim(dim);
  if (rows.begin == rows.end) return;
  if (block.format == KvFormat::kF16 && rows.end - rows.begin <= kMicroRows) {
    const RowsF16 k{static_cast<const uint16_t*>(tile.k), kTileTokens, distance(tile.k, tile.v)};
    const RowsF16 v{static_cast<const uint16_t*>(tile.v), padded, distance(tile.v, next.k)};
    return tile_rows(block, rows.begin, rows.end, tile_begin, k, v, state, sums);
  }
  float* wide_v = wide + dim * kTileTokens;
  widen(block.format, tile, next, dim, wide, wide_v);
  tile_rows(block, rows.begin, rows.end, tile_begin, RowsF32{wide, kTileTokens}, RowsF32{wide_v, padded}, state, sums);
}

static void attention_reset(const AttentionBlock& block, const AttentionState& state) {
  for (int64_t r = 0; r < block.rows; ++r) {
    state.m[r] = -__builtin_inff();
    state.l[r] = 0;
  }
  const int64_t n = block.rows * padded_dim(block.head_dim);
  for (int64_t i = 0; i < n; i += 16) vstore(state.acc + i, vzero());
}

static void attention_chunk(const AttentionBlock& block, const KvTile* tiles, int64_t first_tile, int64_t count,
                            const AttentionState& state, float* scratch) {
  attention_reset(block, state);
  float* sums = scratch;
  float* wide = scratch + 16 * block.rows;
  for (int64_t r = 0; r < block.rows; ++r) vstore(sums + r * 16, vzero());
  for (int64_t i = 0; i < count; ++i) {
    const KvTile& next = tiles[i + 1 < count ? i + 1 : i];
    attend_tile(block, tiles[i], next, (first_tile + i) * kTileTokens, state, sums, wide);
  }
  for (int64_t r = 0; r < block.rows; ++r) state.l[r] = vsum(vload(sums + r * 16));
}

static void attention_begin(const AttentionBlock& block, const float* sinks, const AttentionState& total) {
  attention_reset(block, total);
  if (sinks == nullptr) return;
  for (int64_t r = 0; r < block.rows; ++r) {
    total.m[r] = sinks[r % block.group];
    total.l[r] = 1;
  }
}

static void attention_merge(const AttentionBlock& block, const AttentionState& state, const AttentionState& total) {
  const int64_t padded = padded_dim(block.head_dim);
  for (int64_t r = 0; r < block.rows; ++r) {
    if (!(state.l[r] != 0)) continue;  // sees nothing of this chunk; NaN goes on
    const float m = state.m[r] > total.m[r] ? state.m[r] : total.m[r];
    const float old_factor = exp_nonpositive(total.m[r] - m);
    const float new_factor = exp_nonpositive(state.m[r] - m);
    total.m[r] = m;
    total.l[r] = __builtin_fmaf(state.l[r], new_factor, total.l[r] * old_factor);
    float* to = total.acc + r * padded;
    const float* from = state.acc + r * padded;
    for (int64_t i = 0; i < padded; i += 16) {
      const V kept = vmul(vload(to + i), vset1(old_factor));
      vstore(to + i, vfma(vload(from + i), vset1(new_factor), kept));
    }
  }
}

static void attention_finish(const AttentionBlock& block, const AttentionState& total, float* out, int64_t out_stride) {
  const int64_t padded = padded_dim(block.head_dim);
  for (int64_t r = 0; r < block.rows; ++r) {
    float* to = out + r / block.group * out_stride + r % block.group * block.head_dim;
    const float* acc = total.acc + r * padded;
    // An unseen position can turn a zero's sign (-0 + 0 * v); adding +0 leaves one kind of zero, and so one result.
    const V inverse = vset1(1.0f / total.l[r]);
    const auto output = [&](int64_t d) { return vadd(vmul(vload(acc + d), inverse), vzero()); };
    int64_t d = 0;
    for (; d + 16 <= block.head_dim; d += 16) vstore(to + d, output(d));
    if (d < block.head_dim) vstore_n(to + d, output(d), static_cast<int>(block.head_dim - d));
  }
}

constexpr AttentionKernels kAttention = {attention_chunk, attention_begin, attention_merge, attention_finish, kv_store};

}  // namespace stoke::kernels::STOKE_ISA
