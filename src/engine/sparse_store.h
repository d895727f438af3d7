// The records of a neuron store at run time: all in memory, or behind a cache of single neurons.
//
// Checksums and scales are resident always. In memory: every record is read once at opening, in large direct reads,
// and held against its checksum. Streamed: a slot a record, filled on demand by the sparse FFN; which records stay is
// learnt from how often they fire (cache/unit_cache.h, kLfu). Thread role: the control thread. Ownership: arena, cache,
// tables and checksums are owned here; files and queue, which outlive the FFN that was made, are the caller's. Errors:
// kIo, kCorrupt naming record and offset; kNoMemory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "engine/chunk_reader.h"
#include "engine/model_loader.h"
#include "formats/model_file.h"
#include "formats/neuron_store.h"
#include "kernels/kernels.h"
#include "model/ffn.h"
#include "model/matmul.h"
#include "pipeline/io_queue.h"
#include "pipeline/neuron_table.h"
#include "pipeline/sparse_ffn.h"
#include "stoke/stoke.h"
#include "sys/checked_ranges.h"
#include "sys/memory.h"
#include "sys/thread_pool.h"

namespace stoke::engine {

class SparseStore {
 public:
  // Reads checksums and scales. `loaded` outlives the store.
  static Result<std::unique_ptr<SparseStore>> open(const formats::ModelFile& file, const ModelPlan& loaded);
  ~SparseStore();

  int64_t record_bytes() const;  // of all records
  // What reads of the other tensors are held against.
  const sys::CheckedRanges& matrix_checks() const { return matrix_checks_; }
  // Bytes that make progress, and worth the name.
  int64_t least_bytes() const;
  // Working memory of the FFN for passes of `max_tokens`; `queue` is null where every record is in memory.
  int64_t ffn_bytes(const kernels::Kernels& kernels, sys::ThreadPool& threads, int64_t max_tokens,
                    pipeline::IoQueue* queue) const;

  // One of these: reads every record into memory (kCancelled once `cancel`, which may be null, is set), or takes
  // `bytes` (bookkeeping included) for a cache.
  Status hold_all(const CancelFlag* cancel);
  Status cache_in(int64_t bytes, const std::vector<OpenedFile>& files, pipeline::IoQueue& queue);
  // Gives memory back until the cache takes at most `bytes`. Requires: nothing in flight or leased.
  void shrink(int64_t bytes);

  std::unique_ptr<model::Ffn> make_ffn(model::Multiplier& multiplier, int64_t max_tokens);
  void end_pass();
  // Of the FFN that was made, which must be alive.
  pipeline::SparseCounts counts() const { return ffn_ == nullptr ? pipeline::SparseCounts() : ffn_->counts(); }

 private:
  SparseStore(const formats::ModelFile& file, const ModelPlan& loaded) : file_(file), loaded_(loaded) {}
  Status load_checksums();
  Status check_vectors(formats::ByteSource& file, const formats::NeuronStore& store) const;
  Status load_scales();
  Status load_records(const pipeline::NeuronTable& table, std::byte* to, const OpenedFile& file,
                      const CancelFlag* cancel) const;
  int64_t slot_cost() const;
  pipeline::SparseOptions options(int64_t max_tokens) const;

  const formats::ModelFile& file_;
  const ModelPlan& loaded_;
  formats::StoreChecksums checksums_;
  sys::CheckedRanges matrix_checks_;
  std::vector<std::byte> scales_;
  std::vector<pipeline::NeuronTable> tables_;
  int64_t units_ = 0;
  size_t slot_bytes_ = 0;
  sys::Memory arena_;
  std::unique_ptr<cache::UnitCache> cache_;
  pipeline::IoQueue* queue_ = nullptr;
  pipeline::SparseFfn* ffn_ = nullptr;
};

}  // namespace stoke::engine
