// The records of a neuron store at run time: all in memory, or behind a cache of single neurons.
//
// Checksums and scales are resident always. In memory: every record is read once at opening, in large direct reads,
// and held against its checksum. Streamed, by a plan (plan/plan.h): hot records in dense runs, and a cache of slots for
// single ones, which learns from how often they fire (cache/unit_cache.h, kLfu). fill() brings the hot ones and the
// likeliest others, and tells the cache what the store knows, so that the first token finds both in place. Thread role:
// the control thread. Ownership: arena, cache, tables and checksums are owned here; files and queue, which outlive the
// FFN that was made, are the caller's. Errors: kIo, kCorrupt naming record and offset; kNoMemory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "engine/ablation.h"
#include "engine/chunk_reader.h"
#include "engine/forecast.h"
#include "engine/model_loader.h"
#include "engine/streaming.h"
#include "formats/model_file.h"
#include "formats/neuron_store.h"
#include "kernels/kernels.h"
#include "model/ffn.h"
#include "model/matmul.h"
#include "pipeline/firing_log.h"
#include "pipeline/io_queue.h"
#include "pipeline/neuron_table.h"
#include "pipeline/record_loader.h"
#include "pipeline/sparse_ffn.h"
#include "plan/plan.h"
#include "stoke/stoke.h"
#include "sys/checked_ranges.h"
#include "sys/memory.h"
#include "sys/populator.h"
#include "sys/thread_pool.h"

namespace stoke::engine {

class SparseStore {
 public:
  // Reads checksums and scales. `loaded` outlives the store.
  static Result<std::unique_ptr<SparseStore>> open(const formats::ModelFile& file, const ModelPlan& loaded,
                                                   const Ablation& ablation);
  ~SparseStore();
  // Writes which neurons fire to a file. kInvalid where whole layers are brought, so that none is looked up.
  Status log_firings(const std::string& path);

  int64_t record_bytes() const;  // of all records
  // What reads of the other tensors are held against.
  const sys::CheckedRanges& matrix_checks() const { return matrix_checks_; }
  // Bytes that make progress, and worth the name.
  int64_t least_bytes() const;
  const Ablation& ablation() const { return ablation_; }
  // Working memory of the FFN for passes of `max_tokens`; `queue` is null where every record is in memory.
  int64_t ffn_bytes(const kernels::Kernels& kernels, sys::ThreadPool& threads, int64_t max_tokens,
                    pipeline::IoQueue* queue) const;

  // How `room` bytes are split between the matrices, these records and a KV cache of `kv` bytes when full.
  plan::Plan plan(int64_t room, int64_t kv, const Streaming::Range& matrices) const;
  // What a token chooses of the records, as is assumed, with the plan's segments in memory.
  void add_work(const plan::Plan& plan, TokenWork* work) const;

  // One of these: reads every record into memory (kCancelled once `cancel`, which may be null, is set), or takes what
  // the plan gives (bookkeeping included).
  Status hold_all(const CancelFlag* cancel);
  Status cache_in(const plan::Plan& plan, const std::vector<OpenedFile>& files, pipeline::IoQueue& queue);
  // After cache_in(), once, before the first pass.
  Status fill(const CancelFlag* cancel);
  // Others hold so many bytes of the cold segment's room: it gives way, or takes back what is left. Requires: nothing
  // in flight or leased.
  void make_room(int64_t bytes);
  // The cache's memory that may be touched.
  sys::Populator::Range memory() const {
    return {&arena_, cache_ == nullptr ? 0 : static_cast<size_t>(cache_->slots()) * slot_bytes_};
  }

  std::unique_ptr<model::Ffn> make_ffn(model::Multiplier& multiplier, int64_t max_tokens);
  void end_pass();
  // Records that the cache holds at most, now; 0 without a cache.
  int64_t cache_slots() const { return cache_ == nullptr ? 0 : cache_->slots(); }
  // Of the FFN that was made, which must be alive.
  pipeline::SparseCounts counts() const { return ffn_ == nullptr ? pipeline::SparseCounts() : ffn_->counts(); }

 private:
  // Misses that lie closer than this come in one read: a request costs about as much as 34 KB read (docs/reads.md).
  static constexpr uint32_t kGapBytes = 16 << 10;
  SparseStore(const formats::ModelFile& file, const ModelPlan& loaded, const Ablation& ablation)
      : file_(file), loaded_(loaded), ablation_(ablation) {}
  Status load_checksums();
  Status check_vectors(formats::ByteSource& file, const formats::NeuronStore& store) const;
  Status load_scales();
  Status fill_layer(pipeline::RecordLoader& loader, size_t layer, const CancelFlag* cancel);
  Status fill_hot(pipeline::RecordLoader& loader, const pipeline::NeuronTable& table, const CancelFlag* cancel);
  bool wants_cold(size_t layer, int64_t neuron) const;
  void seed(const pipeline::NeuronTable& table);
  Status load_records(const pipeline::NeuronTable& table, std::byte* to, const OpenedFile& file,
                      const CancelFlag* cancel) const;
  int64_t slot_cost() const;
  void add_known_work(const plan::Plan& plan, TokenWork* work) const;
  cache::CacheOptions cache_options() const;  // with one slot
  int64_t cache_tables() const;               // bytes beside its slots
  std::span<const uint16_t> rates_of(const pipeline::NeuronTable& table) const;
  pipeline::SparseOptions options(int64_t max_tokens) const;

  const formats::ModelFile& file_;
  const ModelPlan& loaded_;
  Ablation ablation_;
  formats::StoreChecksums checksums_;
  sys::CheckedRanges matrix_checks_;
  std::vector<std::byte> scales_;
  std::vector<uint16_t> rates_;  // of all records, until the cache was filled; empty: not known
  bool hot_first_ = false;
  plan::Plan plan_;
  std::vector<pipeline::NeuronTable> tables_;
  int64_t units_ = 0;
  size_t slot_bytes_ = 0;
  int64_t most_slots_ = 0;  // of the arena
  sys::Memory arena_;
  sys::Memory hot_;
  int64_t filled_ = 0;  // cold records
  std::unique_ptr<cache::UnitCache> cache_;
  std::unique_ptr<pipeline::FiringLog> firings_;
  pipeline::IoQueue* queue_ = nullptr;
  pipeline::SparseFfn* ffn_ = nullptr;
};

}  // namespace stoke::engine
