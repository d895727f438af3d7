#include "model/attention.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "kernels/attention.h"

namespace stoke::model {
namespace {

using kernels::AttentionBlock;
using kernels::AttentionKernels;
using kernels::AttentionState;
using kernels::kChunkTiles;
using kernels::kChunkTokens;
using kernels::kTileTokens;

static_assert(kv::kPageTokens == kTileTokens);

// Rows of a query block: enough that widening a tile to FP32 is a few percent of the work on it, few enough for L2.
constexpr int64_t kBlockRows = 192;
// Smaller when that keeps all threads busy, but not below this.
constexpr int64_t kBlockRowsMin = 24;
// Below this many blocks a thread, the context is split too.
constexpr int64_t kBlocksPerThread = 4;
constexpr int64_t kSplitRows = 16;

kernels::KvFormat format_of(kv::KvType type) {
  return type == kv::KvType::kF16 ? kernels::KvFormat::kF16 : kernels::KvFormat::kQ8_0;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round16(int64_t n) { return ceil_div(n, 16) * 16; }
int64_t group_of(const AttentionShape& s) { return s.heads / s.kv_heads; }
int64_t most_block_queries(const AttentionShape& s) { return std::max<int64_t>(1, kBlockRows / group_of(s)); }
int64_t split_rows(const AttentionShape& s) { return std::max(kSplitRows, group_of(s)); }

// Where things lie in the scratch, in floats.
struct Scratch {
  int64_t total, chunk_state, chunk_scratch;  // offsets inside a worker's part, behind the packed queries
  int64_t worker;                             // of one worker's part
  int64_t split_state;                        // of one state in the part shared by all workers, which comes last

  explicit Scratch(const AttentionShape& s) {
    const int64_t rows = most_block_queries(s) * group_of(s);
    total = round16(rows * s.head_dim);
    chunk_state = total + kernels::attention_state_floats(rows, s.head_dim);
    chunk_scratch = chunk_state + kernels::attention_state_floats(rows, s.head_dim);
    worker = chunk_scratch + round16(kernels::attention_chunk_floats(rows, s.head_dim));
    split_state = kernels::attention_state_floats(split_rows(s), s.head_dim);
  }
};

// One KV head and a block of consecutive queries of one run, and the chunks of context they see.
struct Item {
  const SequenceRun* run = nullptr;
  int64_t query = 0;  // first, within the run
  int64_t queries = 0;
  int kv_head = 0;
  int64_t oldest = 0;  // first position that any query sees
  int64_t newest = 0;  // last one

  int64_t first_chunk() const { return oldest / kChunkTokens; }
  int64_t chunks() const { return newest / kChunkTokens - first_chunk() + 1; }
};

class Attention {
 public:
  Attention(const AttentionArgs& args, const AttentionKernels& kernels, int threads)
      : args_(args), kernels_(kernels), scratch_(args.shape), threads_(threads) {
    const AttentionShape& s = args.shape;
    int64_t newest_end = 0;
    choose_block_queries();
    for (const SequenceRun& run : args.runs) {
      most_queries_ = std::max(most_queries_, std::min(run.count, block_queries_));
      newest_end = std::max(newest_end, run.pos + run.count);
    }
    most_chunks_ = ceil_div(newest_end, kChunkTokens);
    if (s.window > 0) most_chunks_ = std::min(most_chunks_, ceil_div(s.window + most_queries_, kChunkTokens) + 1);
  }

  int64_t items() const { return blocks_ * args_.shape.kv_heads; }
  // No item sees more chunks.
  int64_t most_chunks() const { return most_chunks_; }
  bool split() const {
    return most_chunks_ > 1 && items() < kBlocksPerThread * threads_ &&
           most_queries_ * group_of(args_.shape) <= split_rows(args_.shape);
  }

  // The whole of an item.
  void compute(int64_t index, int worker) const {
    const Item item = item_at(index);
    float* part = worker_part(worker);
    const AttentionBlock block = block_of(item, part);
    const AttentionState total = kernels::attention_state(part + scratch_.total, block.rows);
    const AttentionState state = kernels::attention_state(part + scratch_.chunk_state, block.rows);
    const bool sinks = args_.shape.sinks != nullptr;
    if (sinks) kernels_.begin(block, sinks_of(item), total);
    for (int64_t c = 0; c < item.chunks(); ++c) {
      const bool first = c == 0 && !sinks;
      compute_chunk(item, block, c, first ? total : state, part);
      if (!first) kernels_.merge(block, state, total);
    }
    kernels_.finish(block, total, output_of(item), args_.out_stride);
  }

  // One chunk of an item, its state kept for combine.
  void compute_split(int64_t index, int64_t chunk, int worker) const {
    const Item item = item_at(index);
    if (chunk >= item.chunks()) return;
    float* part = worker_part(worker);
    const AttentionBlock block = block_of(item, part);
    compute_chunk(item, block, chunk, split_state(index, chunk, block.rows), part);
  }

  void combine(int64_t index) const {
    const Item item = item_at(index);
    float* part = worker_part(0);
    const AttentionBlock block = block_of(item, part);
    const AttentionState total = kernels::attention_state(part + scratch_.total, block.rows);
    kernels_.begin(block, sinks_of(item), total);
    for (int64_t c = 0; c < item.chunks(); ++c) {
      kernels_.merge(block, split_state(index, c, block.rows), total);
    }
    kernels_.finish(block, total, output_of(item), args_.out_stride);
  }

 private:
  void choose_block_queries() {
    const AttentionShape& s = args_.shape;
    for (block_queries_ = most_block_queries(s);; block_queries_ = (block_queries_ + 1) / 2) {
      blocks_ = 0;
      for (const SequenceRun& run : args_.runs) blocks_ += ceil_div(run.count, block_queries_);
      if (items() >= kBlocksPerThread * threads_ || block_queries_ * group_of(s) < 2 * kBlockRowsMin) return;
    }
  }

  // Later blocks see more context: they come first, so that the last work to be taken is small.
  Item item_at(int64_t index) const {
    const AttentionShape& s = args_.shape;
    int64_t block = blocks_ - 1 - index / s.kv_heads;
    const SequenceRun* run = args_.runs.data();
    while (block >= ceil_div(run->count, block_queries_)) block -= ceil_div((run++)->count, block_queries_);
    Item item;
    item.run = run;
    item.query = block * block_queries_;
    item.queries = std::min(block_queries_, run->count - item.query);
    item.kv_head = static_cast<int>(index % s.kv_heads);
    const int64_t pos = run->pos + item.query;
    item.oldest = s.window > 0 ? std::max<int64_t>(0, pos - s.window + 1) : 0;
    item.newest = pos + item.queries - 1;
    return item;
  }

  float* worker_part(int worker) const { return static_cast<float*>(args_.scratch) + worker * scratch_.worker; }

  AttentionState split_state(int64_t index, int64_t chunk, int64_t rows) const {
    float* states = worker_part(threads_);
    return kernels::attention_state(states + (index * most_chunks_ + chunk) * scratch_.split_state, rows);
  }

  // First float of the item's heads in a row of q or out.
  int64_t column(const Item& item) const { return item.kv_head * group_of(args_.shape) * args_.shape.head_dim; }
  const float* sinks_of(const Item& item) const {
    return args_.shape.sinks == nullptr ? nullptr : args_.shape.sinks + item.kv_head * group_of(args_.shape);
  }
  float* output_of(const Item& item) const {
    return args_.out + (item.run->first + item.query) * args_.out_stride + column(item);
  }

  // The heads of one query lie together in q; those of several are packed into the worker's part.
  AttentionBlock block_of(const Item& item, float* packed) const {
    const AttentionShape& s = args_.shape;
    const int64_t row_floats = group_of(s) * s.head_dim;
    const float* q = args_.q + (item.run->first + item.query) * args_.q_stride + column(item);
    AttentionBlock block;
    block.format = format_of(args_.pool->options().type);
    block.head_dim = s.head_dim;
    block.group = group_of(s);
    block.rows = item.queries * block.group;
    block.pos = item.run->pos + item.query;
    block.window = s.window;
    block.scale = s.scale;
    block.softcap = s.softcap;
    block.q = item.queries == 1 ? q : packed;
    for (int64_t i = 0; item.queries > 1 && i < item.queries; ++i) {
      std::memcpy(packed + i * row_floats, q + i * args_.q_stride, static_cast<size_t>(row_floats) * sizeof(float));
    }
    return block;
  }

  void compute_chunk(const Item& item, const AttentionBlock& block, int64_t chunk, const AttentionState& state,
                     float* part) const {
    const int64_t chunk_tile = (item.first_chunk() + chunk) * kChunkTiles;
    const int64_t first = std::max(chunk_tile, item.oldest / kTileTokens);
    const int64_t end = std::min(chunk_tile + kChunkTiles, item.newest / kTileTokens + 1);
    std::array<kernels::KvTile, kChunkTiles> tiles;
    for (int64_t t = first; t < end; ++t) {
      const kv::TileView v = args_.pool->tile(item.run->seq, t, args_.layer, item.kv_head);
      tiles[static_cast<size_t>(t - first)] = {v.k, v.v, v.k_scale, v.v_scale};
    }
    kernels_.chunk(block, tiles.data(), first, end - first, state, part + scratch_.chunk_scratch);
  }

  const AttentionArgs& args_;
  const AttentionKernels& kernels_;
  const Scratch scratch_;
  const int threads_;
  int64_t block_queries_ = 0;
  int64_t blocks_ = 0;
  int64_t most_queries_ = 0;
  int64_t most_chunks_ = 0;
};

}  // namespace

void store_kv(kv::KvPool& pool, const SequenceRun& run, int layer, int first_head, int end_head, const NewKv& rows,
              const kernels::Kernels& kernels) {
  const kv::PoolOptions& o = pool.options();
  kernels::KvStoreArgs args;
  args.format = format_of(o.type);
  args.head_dim = o.head_dim;
  args.stride = rows.stride;
  for (int64_t i = 0; i < run.count; i += args.count) {
    args.offset = (run.pos + i) % kTileTokens;
    args.count = std::min(run.count - i, kTileTokens - args.offset);
    for (int head = first_head; head < end_head; ++head) {
      const kv::MutableTile t = pool.writable_tile(run.seq, (run.pos + i) / kTileTokens, layer, head);
      args.tile = {t.k, t.v, t.k_scale, t.v_scale};
      const int64_t at = (run.first + i) * rows.stride + int64_t{head} * o.head_dim;
      args.k = rows.k + at;
      args.v = rows.v + at;
      kernels.attention->store(args);
    }
  }
}

size_t attention_scratch_bytes(const AttentionShape& shape, int threads, int64_t max_context) {
  const Scratch scratch(shape);
  const int64_t states = kBlocksPerThread * threads * ceil_div(max_context, kChunkTokens);
  return static_cast<size_t>(threads * scratch.worker + states * scratch.split_state) * sizeof(float);
}

void attention(const AttentionArgs& args, const kernels::Kernels& kernels, sys::ThreadPool& threads) {
  const AttentionShape& s = args.shape;
  const kv::PoolOptions& o = args.pool->options();
  CHECK(s.kv_heads == o.kv_heads && s.head_dim == o.head_dim && s.heads % s.kv_heads == 0);
  const Attention work(args, *kernels.attention, threads.size());
  if (!work.split()) {
    threads.parallel_for(work.items(), 1, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) work.compute(i, worker);
    });
    return;
  }
  const int64_t chunks = work.most_chunks();
  threads.parallel_for(work.items() * chunks, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) work.compute_split(i / chunks, i % chunks, worker);
  });
  for (int64_t i = 0; i < work.items(); ++i) work.combine(i);
}

}  // namespace stoke::model
