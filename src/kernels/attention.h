// Attention kernels: blocks of query rows against cache tiles, and the packing of new keys and values into tiles.
//
// A row is one (query, head) pair. The rows of a block share one KV head and so every read of a tile.
//
// THE ORDER OF SUMMATION. Positions are cut at absolute multiples into tiles of 64 and chunks of 8 tiles.
//   score     = sequential FMA over the head dimension, ascending, from 0; then * scale; then the soft cap
//   in a chunk, tile by tile ascending: m' = max(m, tile's maximum); l and acc are multiplied by exp(m - m');
//     p = exp(score - m'); l sums p in 16 lanes (lane = position mod 16); acc = fma(p, v, acc), positions ascending
//   chunks ascending: M' = max(M, m); L = L * exp(M - M') + l * exp(m - M'); A likewise, the second product fused
//   the first state is M = -inf, L = 0, A = 0, or with a sink M = sink, L = 1, A = 0; output = A * (1 / L)
// Positions that a row does not see take no part: the bits are those of a cache without them. So a row's output is a
// function of its query and the positions it sees, whatever block, batch, chunk of prompt or thread it is computed in.
//
// Pure leaves, as all kernels; all buffers 64-byte aligned and the caller's.
// Thread role: any, concurrently, on disjoint states, scratches and tiles.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoke::kernels {

inline constexpr int64_t kTileTokens = 64;
inline constexpr int64_t kChunkTiles = 8;
inline constexpr int64_t kChunkTokens = kTileTokens * kChunkTiles;

enum class KvFormat : uint8_t { kF16, kQ8_0 };

// Rows of V, of accumulators and of scale blocks are padded: a multiple of 16 elements, a block for any 32 begun.
inline constexpr int64_t padded_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
inline constexpr int64_t scale_blocks(int64_t head_dim) { return (head_dim + 31) / 32; }

// One layer and KV head of 64 positions. F16: k (head_dim, 64) halves, v (64, padded_dim) halves, scales null.
// Q8_0: int8 in the same shapes; k_scale (scale_blocks, 64) halves, v_scale (64, scale_blocks) halves.
struct KvTile {
  const void* k = nullptr;
  const void* v = nullptr;
  const uint16_t* k_scale = nullptr;
  const uint16_t* v_scale = nullptr;
};
struct KvTileOut {
  void* k = nullptr;
  void* v = nullptr;
  uint16_t* k_scale = nullptr;
  uint16_t* v_scale = nullptr;
};

// Query rows in query-major order: row r is head r % group of query r / group, which stands at position pos + r /
// group.
struct AttentionBlock {
  KvFormat format = KvFormat::kF16;
  int64_t head_dim = 0;
  int64_t rows = 0;
  int64_t group = 1;   // heads that share the KV head
  int64_t pos = 0;     // of row 0; sees positions (pos - window, pos]
  int64_t window = 0;  // 0: no limit
  float scale = 1;
  float softcap = 0;         // cap * tanh(score / cap) where > 0
  const float* q = nullptr;  // (rows, head_dim)
};

// Softmax state of `rows` rows.
struct AttentionState {
  float* m = nullptr;    // (rows) maximum
  float* l = nullptr;    // (rows) sum of exp(score - m)
  float* acc = nullptr;  // (rows, padded_dim) sum of exp(score - m) * v
};

// Floats that a state of `rows` rows needs (a multiple of 16), and the carving of a buffer into it.
inline constexpr int64_t attention_state_floats(int64_t rows, int64_t head_dim) {
  return 2 * ((rows + 15) / 16 * 16) + rows * padded_dim(head_dim);
}
inline AttentionState attention_state(float* buffer, int64_t rows) {
  const int64_t padded = (rows + 15) / 16 * 16;
  return {buffer, buffer + padded, buffer + 2 * padded};
}

// Floats of scratch for AttentionKernels::chunk.
inline constexpr int64_t attention_chunk_floats(int64_t rows, int64_t head_dim) {
  return 16 * rows + kTileTokens * (head_dim + padded_dim(head_dim));
}

// K and V of `count` consecutive positions that fall into one tile, from `offset` on.
struct KvStoreArgs {
  KvFormat format = KvFormat::kF16;
  int64_t head_dim = 0;
  KvTileOut tile;
  int64_t offset = 0;  // offset + count <= 64
  int64_t count = 0;
  const float* k = nullptr;  // position i at k + i * stride, head_dim floats
  const float* v = nullptr;
  int64_t stride = 0;
};

struct AttentionKernels {
  // Computes the state of the block over tiles[0, count), which are tiles first_tile, first_tile + 1, ... of the
  // sequence and all of one chunk. A row that sees none of their positions gets m = -inf, l = 0, acc = 0.
  void (*chunk)(const AttentionBlock& block, const KvTile* tiles, int64_t first_tile, int64_t count,
                const AttentionState& state, float* scratch);
  // The state before the first chunk. sinks: (group) or null. Without sinks, begin and merge of the first chunk are the
  // same as the first chunk's own state.
  void (*begin)(const AttentionBlock& block, const float* sinks, const AttentionState& total);
  // total = total + state, for chunks in ascending order.
  void (*merge)(const AttentionBlock& block, const AttentionState& state, const AttentionState& total);
  // Row r's head_dim outputs to out + (r / group) * out_stride + (r % group) * head_dim.
  void (*finish)(const AttentionBlock& block, const AttentionState& total, float* out, int64_t out_stride);
  // Rounds keys and values to the format and puts them into the tile.
  void (*store)(const KvStoreArgs& args);
};

}  // namespace stoke::kernels
