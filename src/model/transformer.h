// The forward pass: tokens in, logits out.
//
// A batch is rows of tokens, each row one position of one sequence; rows of a sequence are consecutive and make a run
// (attention.h). Prefill, decoding, many sequences together: all are batches. A row's logits are the same bits whatever
// else is in the batch, however the prompt was cut, and with any number of threads.
// Thread role: the control thread; work is split over the pool. All memory is taken at construction: forward and logits
// allocate nothing.
// Errors: what the weight source says (kIo, kCorrupt, kCancelled). KV positions of a failed batch are unspecified: the
// caller does not commit them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/kernels.h"
#include "kv/kv_pool.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/ffn.h"
#include "model/matmul.h"
#include "model/scratch.h"
#include "model/weight_source.h"
#include "model/weights.h"
#include "sys/thread_pool.h"

namespace stoke::model {

struct Batch {
  std::span<const int32_t> tokens;    // (rows); each 0 <= id < vocab
  std::span<const SequenceRun> runs;  // cover the rows in order; their positions are reserved in the pool
  std::span<const int64_t> outputs;   // rows whose logits may be asked for, ascending; may be empty
};

struct TransformerOptions {
  int64_t max_batch = 512;  // rows
  int64_t max_context = 0;  // the pool's; longrope chooses its factors by it
};

class Transformer {
 public:
  // What the model is made of; all outlive the transformer.
  struct Parts {
    const Config& config;
    const Weights& weights;
    WeightSource& source;
    kv::KvPool& pool;
    const kernels::Kernels& kernels;
    sys::ThreadPool& threads;
    // Makes the FFN, which may keep the multiplier; empty: FullFfn.
    std::function<std::unique_ptr<Ffn>(Multiplier&)> make_ffn = {};
  };

  Transformer(const Parts& parts, const TransformerOptions& options);
  // Bytes of working memory that a transformer takes, with FullFfn.
  static size_t bytes(const Config& config, const sys::ThreadPool& threads, const TransformerOptions& options);

  // Runs all layers: writes K and V of every row (the caller commits them), keeps the last state of `outputs`.
  // Requires: rows <= max_batch.
  Status forward(const Batch& batch);
  // Logits of outputs [first, first + count) of the last forward: out is (count, vocab).
  Status logits(int64_t first, int64_t count, float* out);
  // Between passes: gives the pages of working memory back; logits of the last pass can no longer be had. A pass of few
  // rows touches little of it again.
  void discard_scratch();

 private:
  struct Buffers {
    int64_t* positions = nullptr;  // (max_batch)
    float* x = nullptr;            // (max_batch, dim): the residual stream
    float* normed = nullptr;       // (max_batch, dim)
    float* out = nullptr;          // (max_batch, dim): what attention or FFN gives
    float* q = nullptr;            // (max_batch, q_dim)
    float* k = nullptr;            // (max_batch, kv_dim)
    float* v = nullptr;            // (max_batch, kv_dim)
    float* attended = nullptr;     // (max_batch, q_dim)
    std::byte* acts = nullptr;     // quantised activations of a batch
    std::byte* row = nullptr;      // one stored embedding row
    std::byte* attention = nullptr;
    float* angles[2] = {nullptr, nullptr};  // (max_batch, 2, n_rot / 2): cosines, then sines; global and local rope
  };
  static Buffers layout(ScratchLayout& at, const Config& config, const sys::ThreadPool& threads,
                        const TransformerOptions& options);
  static AttentionShape attention_shape(const Config& config, const LayerWeights* weights, int64_t window);

  void place(const Batch& batch);
  Status embed(const Batch& batch);
  void rotate_tables(int64_t rows);
  Status attend(int layer, const Batch& batch);
  Status project_qkv(int layer);
  void finish_qkv(int layer, const Batch& batch);
  void finish_row(int layer, int64_t row);
  void finish_heads(int layer, int64_t row, const Vector& head_norm, float* x, int heads);
  Status feed_forward(int layer);
  void keep(std::span<const int64_t> outputs);
  void norm(const Vector& weights, const float* x, float* out, int64_t rows);
  void add_to_stream(const Vector& post_norm, const Vector& bias);

  const Config& config_;
  const Weights& weights_;
  WeightSource& source_;
  kv::KvPool& pool_;
  const kernels::Kernels& kernels_;
  sys::ThreadPool& threads_;
  TransformerOptions options_;
  Multiplier multiplier_;
  std::unique_ptr<Ffn> ffn_;
  std::vector<double> rope_frequencies_[2];  // global, local
  Scratch scratch_;
  Buffers buffers_;
  int64_t rows_ = 0;  // rows of the stream: the batch's, then the outputs'
};

}  // namespace stoke::model
