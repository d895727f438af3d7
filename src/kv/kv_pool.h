// The KV cache: a tiled pool shared by all sequences.
//
// A page holds kPageTokens consecutive positions of one sequence, for every layer and KV head. Inside a page, per layer
// and KV head, K lies transposed, (head_dim, kPageTokens), so that scores of 64 positions are plain vector FMAs with no
// horizontal sum, and V lies (kPageTokens, head_dim). New positions are written in place: nothing is copied per token.
// Sequences hold page numbers; pages are counted by reference: fork shares them, writing into a shared page copies that
// page first. This is what batching, prefix reuse, speculation and interceptions stand on.
// Thread role: create/reserve/fork/truncate/release/commit by the control thread; write() and tile reads by any worker,
// on disjoint (sequence, position, layer) resp. when no write is under way.
// Errors: kNoMemory when the pool has no page left; kContextFull past max_context.
// Ownership: the pool owns all pages, taken once at construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"

namespace stoke::kv {

inline constexpr int64_t kPageTokens = 64;

enum class KvType : uint8_t { kF16, kQ8_0 };

struct SeqId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
};

struct PoolOptions {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  KvType type = KvType::kF16;
  int64_t max_context = 0;  // positions a sequence may reach
  int64_t pages = 0;        // in the whole pool
};

// One layer and KV head of one page. F16: k is (head_dim, 64) halves, v (64, head_dim) halves, scales null.
// Q8_0: int8 in the same shapes; k_scale (head_dim/32, 64) halves, v_scale (64, head_dim/32) halves.
struct TileView {
  const void* k = nullptr;
  const void* v = nullptr;
  const uint16_t* k_scale = nullptr;
  const uint16_t* v_scale = nullptr;
};

class KvPool {
 public:
  static Result<std::unique_ptr<KvPool>> create(const PoolOptions& options);
  virtual ~KvPool() = default;

  // Bytes of one page for these options; the pool takes pages * this.
  static size_t page_bytes(const PoolOptions& options);
  virtual const PoolOptions& options() const = 0;

  virtual SeqId create_sequence() = 0;
  virtual SeqId fork(SeqId parent) = 0;                     // shares every page
  virtual void truncate(SeqId seq, int64_t length) = 0;     // length <= current
  virtual void release(SeqId seq) = 0;                      // the id becomes invalid
  // Makes positions [length, length + n) writable (takes pages, copies a shared one). All or nothing.
  virtual Status reserve(SeqId seq, int64_t n) = 0;
  // Declares n more positions written: length += n.
  virtual void commit(SeqId seq, int64_t n) = 0;
  virtual int64_t length(SeqId seq) const = 0;
  virtual int64_t free_pages() const = 0;

  // Stores K and V of one position: (kv_heads, head_dim) floats each, rounded to the pool's type.
  // Requires: pos was reserved.
  virtual void write(SeqId seq, int64_t pos, int layer, const float* k, const float* v) = 0;
  // Page `page` of the sequence holds positions [64 page, 64 page + 64).
  virtual TileView tile(SeqId seq, int64_t page, int layer, int kv_head) const = 0;
};

}  // namespace stoke::kv
