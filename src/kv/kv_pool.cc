#include "kv/kv_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace stoke::kv {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t pages_for(int64_t positions) { return (positions + kPageTokens - 1) / kPageTokens; }

// Far above any model; keeps every product of sizes below within 64 bits.
constexpr int kMostLayers = 1 << 16;
constexpr int kMostHeads = 1 << 16;
constexpr int kMostDim = 1 << 16;
constexpr int64_t kMostContext = int64_t{1} << 40;

Status check(const PoolOptions& o) {
  const bool shape = o.layers > 0 && o.layers <= kMostLayers && o.kv_heads > 0 && o.kv_heads <= kMostHeads &&
                     o.head_dim > 0 && o.head_dim <= kMostDim;
  const bool room = o.max_context > 0 && o.max_context <= kMostContext && o.pages > 0 &&
                    o.pages <= std::numeric_limits<int32_t>::max();
  if (shape && room) return ok_status();
  return Status(Code::kInvalid,
                fmt::format("KV cache: {} layers x {} heads x {} elements, context {}, {} pages make no sense",
                            o.layers, o.kv_heads, o.head_dim, o.max_context, o.pages));
}

}  // namespace

KvPool::TileLayout KvPool::tile_layout(const PoolOptions& o) {
  const bool f16 = o.type == KvType::kF16;
  const size_t element = f16 ? 2 : 1;
  const size_t dim = static_cast<size_t>(o.head_dim);
  const size_t dim16 = (dim + 15) / 16 * 16;
  const size_t scales = f16 ? 0 : (dim + 31) / 32 * kPageTokens * 2;
  TileLayout l;
  l.v = align64(dim * kPageTokens * element);
  l.k_scale = l.v + align64(dim16 * kPageTokens * element);
  l.v_scale = l.k_scale + align64(scales);
  l.bytes = l.v_scale + align64(scales);
  return l;
}

size_t KvPool::page_bytes(const PoolOptions& o) {
  return tile_layout(o).bytes * static_cast<size_t>(o.layers) * static_cast<size_t>(o.kv_heads);
}

Result<std::unique_ptr<KvPool>> KvPool::create(const PoolOptions& options) {
  STOKE_TRY(check(options));
  const size_t page = page_bytes(options);
  const size_t pages = static_cast<size_t>(options.pages);
  if (pages > std::numeric_limits<size_t>::max() / 2 / page) {
    return Status(Code::kNoMemory, fmt::format("KV cache: {} pages of {} bytes are beyond any machine", pages, page));
  }
  Result<sys::Memory> memory = sys::Memory::map(pages * page);
  if (!memory.ok()) return memory.status().with("KV cache");
  return std::unique_ptr<KvPool>(new KvPool(options, std::move(memory).value()));
}

KvPool::KvPool(const PoolOptions& options, sys::Memory memory)
    : options_(options),
      layout_(tile_layout(options)),
      page_bytes_(page_bytes(options)),
      memory_(std::move(memory)),
      references_(static_cast<size_t>(options.pages), 0) {
  free_.reserve(references_.size());
  for (int32_t page = static_cast<int32_t>(options.pages) - 1; page >= 0; --page) free_.push_back(page);
}

KvPool::Sequence& KvPool::at(SeqId seq) {
  CHECK(seq.valid() && static_cast<size_t>(seq.index) < sequences_.size());
  Sequence& s = sequences_[static_cast<size_t>(seq.index)];
  CHECK(s.live);
  return s;
}

const KvPool::Sequence& KvPool::at(SeqId seq) const { return const_cast<KvPool*>(this)->at(seq); }

int32_t KvPool::take_page() {
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvPool::drop_page(int32_t page) {
  int32_t& references = references_[static_cast<size_t>(page)];
  if (--references == 0) free_.push_back(page);
}

SeqId KvPool::create_sequence() {
  if (free_sequences_.empty()) {
    free_sequences_.push_back(static_cast<int32_t>(sequences_.size()));
    Sequence& fresh = sequences_.emplace_back();
    // Later growth allocates nothing.
    const int64_t most = std::min(pages_for(options_.max_context), options_.pages);
    fresh.pages.reserve(static_cast<size_t>(most));
    free_sequences_.reserve(sequences_.size());
  }
  const int32_t index = free_sequences_.back();
  free_sequences_.pop_back();
  sequences_[static_cast<size_t>(index)].live = true;
  return SeqId{index};
}

SeqId KvPool::fork(SeqId parent) {
  const SeqId child = create_sequence();
  const Sequence& from = at(parent);
  Sequence& to = at(child);
  to.length = from.length;
  const auto end = from.pages.begin() + pages_for(from.length);
  to.pages.assign(from.pages.begin(), end);
  for (const int32_t page : to.pages) ++references_[static_cast<size_t>(page)];
  return child;
}

void KvPool::truncate(SeqId seq, int64_t length) {
  Sequence& s = at(seq);
  CHECK(length >= 0 && length <= s.length);
  s.length = length;
  while (static_cast<int64_t>(s.pages.size()) > pages_for(length)) {
    drop_page(s.pages.back());
    s.pages.pop_back();
  }
}

void KvPool::release(SeqId seq) {
  truncate(seq, 0);
  at(seq).live = false;
  free_sequences_.push_back(seq.index);
}

Status KvPool::reserve(SeqId seq, int64_t n) {
  Sequence& s = at(seq);
  CHECK(n >= 0);
  if (n > options_.max_context - s.length) {
    return Status(Code::kContextFull,
                  fmt::format("the context is full: {} + {} positions, {} at most; use a longer --context", s.length, n,
                              options_.max_context));
  }
  const int64_t have = static_cast<int64_t>(s.pages.size());
  const int64_t more = std::max<int64_t>(pages_for(s.length + n) - have, 0);
  // Only the page that the next position falls into can be shared: those behind it were taken by this sequence.
  const size_t next = static_cast<size_t>(s.length / kPageTokens);
  const bool copy = n > 0 && next < s.pages.size() && references_[static_cast<size_t>(s.pages[next])] > 1;
  if (more + copy > free_pages()) {
    return Status(Code::kNoMemory, fmt::format("the KV cache is full: {} pages of {} tokens needed, {} of {} free",
                                               more + copy, kPageTokens, free_pages(), options_.pages));
  }
  if (copy) {
    const int32_t own = take_page();
    std::memcpy(memory_.data() + static_cast<size_t>(own) * page_bytes_,
                memory_.data() + static_cast<size_t>(s.pages[next]) * page_bytes_, page_bytes_);
    drop_page(s.pages[next]);
    s.pages[next] = own;
  }
  for (int64_t i = 0; i < more; ++i) s.pages.push_back(take_page());
  return ok_status();
}

void KvPool::commit(SeqId seq, int64_t n) {
  Sequence& s = at(seq);
  CHECK(n >= 0 && pages_for(s.length + n) <= static_cast<int64_t>(s.pages.size()));
  s.length += n;
}

int64_t KvPool::length(SeqId seq) const { return at(seq).length; }

std::byte* KvPool::tile_bytes(SeqId seq, int64_t page, int layer, int kv_head) const {
  const Sequence& s = at(seq);
  DCHECK(page >= 0 && page < static_cast<int64_t>(s.pages.size()));
  DCHECK(layer >= 0 && layer < options_.layers && kv_head >= 0 && kv_head < options_.kv_heads);
  const size_t tile =
      static_cast<size_t>(layer) * static_cast<size_t>(options_.kv_heads) + static_cast<size_t>(kv_head);
  return memory_.data() + static_cast<size_t>(s.pages[static_cast<size_t>(page)]) * page_bytes_ + tile * layout_.bytes;
}

MutableTile KvPool::writable_tile(SeqId seq, int64_t page, int layer, int kv_head) {
  std::byte* base = tile_bytes(seq, page, layer, kv_head);
  MutableTile t;
  t.k = base;
  t.v = base + layout_.v;
  if (options_.type == KvType::kQ8_0) {
    t.k_scale = reinterpret_cast<uint16_t*>(base + layout_.k_scale);
    t.v_scale = reinterpret_cast<uint16_t*>(base + layout_.v_scale);
  }
  return t;
}

TileView KvPool::tile(SeqId seq, int64_t page, int layer, int kv_head) const {
  const MutableTile t = const_cast<KvPool*>(this)->writable_tile(seq, page, layer, kv_head);
  return {t.k, t.v, t.k_scale, t.v_scale};
}

}  // namespace stoke::kv
