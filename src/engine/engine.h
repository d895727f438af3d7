// The engine: a model file made ready to run. Composes loader, weight source, KV pool, threads, transformer and text,
// under one sizing of memory; Model, Session and Tokenizer (include/stoke) are thin faces of it.
//
// Thread role: the control thread. Ownership: everything is owned here; sessions are sequence ids in the pool.
// Memory: taken by open(); append() and logits() allocate nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/cancellable_source.h"
#include "engine/memory_need.h"
#include "engine/model_loader.h"
#include "engine/resident_source.h"
#include "engine/route_log.h"
#include "engine/sparse_store.h"
#include "engine/streaming.h"
#include "engine/timings.h"
#include "formats/firing_stats.h"
#include "kernels/kernels.h"
#include "kv/kv_pool.h"
#include "model/transformer.h"
#include "stoke/stoke.h"
#include "sys/populator.h"
#include "sys/thread_pool.h"
#include "sys/trace.h"

namespace stoke::engine {

// Compute threads where the user names none: the physical cores that affinity and cgroup quota leave this process.
int default_threads();

// What a model file needs, before anything large is taken.
struct Prepared {
  formats::ModelFile file;
  ModelPlan loaded;  // config, plan and vectors
  std::unique_ptr<Tokenizer> tokenizer;
  int64_t text_bytes = 0;
  int64_t process_bytes = 0;
  SizeRange sizes;
  ModelInfo info;

  ModelSize size(const sys::ThreadPool& threads) const {
    return {.config = &loaded.config,
            .threads = &threads,
            .weights_bytes = static_cast<int64_t>(loaded.plan.bytes() + loaded.record_bytes()),
            .text_bytes = text_bytes,
            .process_bytes = process_bytes};
  }
};
// Reads headers, small vectors and the tokenizer.
Result<Prepared> prepare(const std::string& path, const ModelOptions& options);

struct Streamable;

class Engine {
 public:
  // recorded: one a layer, where what fires is to be counted (recording_ffn.h); outlives the engine.
  static Result<std::unique_ptr<Engine>> open(const std::string& path, const ModelOptions& options,
                                              std::span<formats::LayerFiring> recorded = {});

  const ModelInfo& info() const { return prepared_.info; }
  const MemoryReport& memory() const { return memory_; }
  const model::Config& config() const { return prepared_.loaded.config; }
  const Tokenizer& tokenizer() const { return *prepared_.tokenizer; }
  const Sizes& sizes() const { return sizes_; }
  int threads() const { return threads_->size(); }
  kv::KvPool& pool() { return *pool_; }
  // A prompt of `tokens` was computed; a step gave `tokens` tokens, one a sequence.
  void add_prefill(int64_t tokens, double seconds);
  void add_step(int64_t tokens, double seconds);
  // Of a prompt under way, so many tokens more are computed.
  void count_prompt(int64_t tokens) { prompt_done_ += tokens; }
  Timings& timings() { return timings_; }
  sys::Trace* trace() { return trace_.get(); }
  Stats stats();
  void reset_stats();
  Status finish_loading() { return resident_ ? resident_->wait_all() : ok_status(); }

  // Takes pages for, computes and commits the tokens of some sequences: `runs` say which rows belong to which sequence
  // (pos is filled in here). The last states of the rows `outputs` (ascending) stay for logits().
  // Fails with nothing committed: kContextFull, kNoMemory (no KV page left), kCancelled, or what reading weights says.
  // Requires: tokens.size() <= sizes().batch, ids within the vocabulary.
  Status append(std::span<const int32_t> tokens, std::span<model::SequenceRun> runs, std::span<const int64_t> outputs,
                const CancelFlag* cancel);
  // Logits of outputs [first, first + count) of the last append: out is (count, vocab).
  Status logits(int64_t first, int64_t count, float* out);
  // Room for the logits of kScoreRows rows.
  std::span<float> score_rows() { return score_rows_; }

 private:
  Engine(Prepared prepared, std::unique_ptr<sys::Trace> trace, std::unique_ptr<sys::ThreadPool> threads);
  Status open_store(const ModelOptions& options);
  Status take_memory(const ModelOptions& options);
  Status open_resident(const ModelOptions& options);
  Status open_streaming(const ModelOptions& options, const Budget& budget);
  Status ask_context(const ModelOptions& options, const Budget& budget);
  void allow_shorter_context(const ModelOptions& options);
  std::string shorter_context(const Streamable& model) const;
  ModelSize model_size(pipeline::IoQueue* queue);
  std::unique_ptr<model::Ffn> make_ffn(model::Multiplier& multiplier);
  void make_room(int64_t rows);
  void make_room_now();
  bool take_activations(int64_t rows);
  bool take_kv();
  void populate();
  std::function<void()> ticker(ActivityCallback activity);
  Activity activity() const;
  double hit_rate() const;
  void stream_stats(Stats* stats) const;
  void store_stats(Stats* stats) const;
  void release_reserved(std::span<const model::SequenceRun> runs);

  Prepared prepared_;
  std::unique_ptr<sys::Trace> trace_;  // null: nobody traces. Outlives what records
  std::unique_ptr<sys::ThreadPool> threads_;
  const kernels::Kernels* kernels_ = nullptr;
  Sizes sizes_;
  MemoryReport memory_;
  TimePoint start_;
  double open_s_ = 0;
  // What streaming did up to some moment.
  struct IoMark {
    uint64_t bytes = 0;
    uint64_t reads = 0;
    int64_t stall_ns = 0;
    uint64_t hits = 0;
    uint64_t lookups = 0;
    IoMark& operator+=(const IoMark& other);
    IoMark operator-(const IoMark& other) const;
  };
  IoMark io_now() const;
  void count_lookups(IoMark* mark) const;
  IoMark io_before_;                      // at the last reset
  IoMark io_mark_;                        // at the end of the last pass
  IoMark decode_io_;                      // in decoding steps alone
  pipeline::SparseCounts sparse_before_;  // at the last reset
  int64_t prompt_done_ = 0;
  Timings timings_;
  std::vector<float> score_rows_;  // (kScoreRows, vocab)
  std::unique_ptr<kv::KvPool> pool_;
  std::unique_ptr<RouteLog> route_log_;       // null: nobody asked which experts are chosen
  std::unique_ptr<SparseStore> store_;        // of a neuron store: its records, and the checksums that sources use
  std::unique_ptr<ResidentSource> resident_;  // one of these two
  std::unique_ptr<Streaming> streaming_;
  sys::Populator populator_;  // of the memory of both, so gone before them
  std::span<formats::LayerFiring> recorded_;
  // Streaming, where weights, KV and a prompt's activations share what is not fixed.
  int64_t few_rows_ = 0;        // rows of a pass whose activations are fixed
  int64_t prompt_bytes_ = 0;    // what the activations of a full batch take beside these
  int64_t prompt_room_ = 0;     // ... of which room was made for: all of it or none
  bool many_before_ = false;    // the last pass had more rows
  int64_t context_needed_ = 0;  // what options.context_needed said
  int64_t kv_room_ = 0;         // bytes of the KV pool that room was made for
  std::unique_ptr<CancellableSource> cancellable_;
  std::unique_ptr<model::Transformer> transformer_;
};

}  // namespace stoke::engine
