// The KV cache: a tiled pool shared by all sequences.
//
// A page holds kPageTokens consecutive positions of one sequence, for every layer and KV head. Inside a page, per layer
// and KV head, K lies transposed, (head_dim, kPageTokens), so that scores of 64 positions are plain vector FMAs with no
// horizontal sum, and V lies (kPageTokens, padded head_dim). New positions are written in place: nothing is copied per
// token. Sequences hold page numbers; pages are counted by reference: fork shares them, and reserving room in a shared
// page copies that page first. This is what batching, prefix reuse, speculation and interceptions stand on.
// The pool hands out tiles; model/attention.h packs keys and values into them (the kernels do the rounding).
// Thread role: create/fork/truncate/release/reserve/commit by the control thread; tile reads and writes by any worker,
// on disjoint (sequence, position, layer) resp. when no write is under way.
// Errors: kNoMemory when the pool has no page left; kContextFull past max_context; kInvalid for senseless options.
// Ownership: the pool owns all pages, taken once at construction; untouched ones cost no physical memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "sys/memory.h"

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

// One layer and KV head of one page, 64-byte aligned. dim16 is head_dim rounded up to a multiple of 16, blocks is
// head_dim / 32 rounded up. F16: k is (head_dim, 64) halves, v (64, dim16) halves, scales null.
// Q8_0: int8 in the same shapes; k_scale (blocks, 64) halves, v_scale (64, blocks) halves.
struct TileView {
  const void* k = nullptr;
  const void* v = nullptr;
  const uint16_t* k_scale = nullptr;
  const uint16_t* v_scale = nullptr;
};
struct MutableTile {
  void* k = nullptr;
  void* v = nullptr;
  uint16_t* k_scale = nullptr;
  uint16_t* v_scale = nullptr;
};

class KvPool {
 public:
  static Result<std::unique_ptr<KvPool>> create(const PoolOptions& options);

  // Bytes of one page for these options; the pool takes pages * this.
  static size_t page_bytes(const PoolOptions& options);
  const PoolOptions& options() const { return options_; }

  SeqId create_sequence();
  // Shares every page that holds committed positions. Both reserve again before they write.
  SeqId fork(SeqId parent);
  // Requires: length <= current. Also gives back pages that were reserved and not committed.
  void truncate(SeqId seq, int64_t length);
  void release(SeqId seq);  // the id becomes invalid, and is used again
  // Makes positions [length, length + n) writable (takes pages, copies a shared one). All or nothing.
  Status reserve(SeqId seq, int64_t n);
  // Declares n more positions written: length += n. Requires: they were reserved.
  void commit(SeqId seq, int64_t n);
  int64_t length(SeqId seq) const;
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }

  // Page `page` of the sequence holds positions [64 page, 64 page + 64).
  TileView tile(SeqId seq, int64_t page, int layer, int kv_head) const;
  // Only positions that are reserved and not committed may be written.
  MutableTile writable_tile(SeqId seq, int64_t page, int layer, int kv_head);

 private:
  struct Sequence {
    bool live = false;
    int64_t length = 0;
    std::vector<int32_t> pages;
  };
  // Byte offsets inside a tile.
  struct TileLayout {
    size_t v = 0;
    size_t k_scale = 0;
    size_t v_scale = 0;
    size_t bytes = 0;
  };

  KvPool(const PoolOptions& options, sys::Memory memory);
  static TileLayout tile_layout(const PoolOptions& options);
  Sequence& at(SeqId seq);
  const Sequence& at(SeqId seq) const;
  std::byte* tile_bytes(SeqId seq, int64_t page, int layer, int kv_head) const;
  int32_t take_page();
  void drop_page(int32_t page);

  PoolOptions options_;
  TileLayout layout_;
  size_t page_bytes_ = 0;
  sys::Memory memory_;
  std::vector<int32_t> references_;  // per page
  std::vector<int32_t> free_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> free_sequences_;
};

}  // namespace stoke::kv
