// Attention of a batch of tokens over the tiled KV cache.
//
// For each query and head: online softmax over the cache tiles in ascending order, in the order of summation that
// kernels/attention.h lays down. Tiles and chunks are cut at absolute positions, so the bits of a position's output do
// not depend on how the prompt was chunked, what else is in the batch, or the number of threads.
// Thread role: called by the control thread; splits the work over the pool by (sequence, query block, KV head), and
// over chunks of the context where that gives too little to do (decoding with few KV heads).
// Allocates nothing: scratch comes from the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/kernels.h"
#include "kv/kv_pool.h"
#include "sys/thread_pool.h"

namespace stoke::model {

// `count` consecutive tokens of one sequence inside a batch: batch rows [first, first + count), at positions
// [pos, pos + count). Their K and V of this layer are already written.
struct SequenceRun {
  kv::SeqId seq;
  int64_t first = 0;
  int64_t count = 0;
  int64_t pos = 0;
};

struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;  // heads is a multiple; a group of heads shares each K/V read
  int head_dim = 0;
  float scale = 1;               // applied to scores
  float softcap = 0;             // cap * tanh(score / cap) where > 0
  int64_t window = 0;            // a query at p sees positions > p - window where > 0
  const float* sinks = nullptr;  // (heads): a logit that takes probability and gives no value (gpt-oss), or null
};

// Keys and values of a batch: rows of (kv_heads, head_dim) floats, `stride` floats apart.
struct NewKv {
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;
};

// Stores keys and values of the run's tokens, rounded to the pool's type, of the KV heads [first_head, end_head); the
// run's rows are read. Disjoint positions or heads may be stored by different threads. Requires: the positions are
// reserved and not committed.
void store_kv(kv::KvPool& pool, const SequenceRun& run, int layer, int first_head, int end_head, const NewKv& rows,
              const kernels::Kernels& kernels);

// Bytes of scratch for `threads` workers over sequences of at most `max_context` positions.
size_t attention_scratch_bytes(const AttentionShape& shape, int threads, int64_t max_context);

// q, out: (tokens, heads * head_dim) with the given strides in floats. q already has norm and rotary applied.
struct AttentionArgs {
  AttentionShape shape;
  const kv::KvPool* pool = nullptr;
  int layer = 0;
  std::span<const SequenceRun> runs;
  const float* q = nullptr;
  int64_t q_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  void* scratch = nullptr;  // attention_scratch_bytes(shape, threads, pool's max_context), 64-byte aligned
};

void attention(const AttentionArgs& args, const kernels::Kernels& kernels, sys::ThreadPool& threads);

}  // namespace stoke::model
