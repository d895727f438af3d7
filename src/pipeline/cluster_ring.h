// Whole clusters of records in memory, in the order in which a prompt needs them: hot ones where they are, the others
// read ahead through a ring of buffers.
//
// What is expected is read in large pieces, as far ahead as there are buffers, across layers, and while others compute.
// Records that are hot or cached are copied, not read; neighbouring gaps are read along where that is cheaper than a
// request. Records are checked against their checksums once a cluster is complete; what is wrong is read once more.
// Released clusters feed the cache: it counts the uses, and takes the records that its policy wants.
// Thread role: the control thread; checking is split over the pool. Ownership: its buffers; the rest outlives it. After
// construction nothing is allocated (but for the text of a failure).
// Errors: kIo, kCorrupt, naming layer, neuron, file and offset; flush() then makes it usable again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "pipeline/io_queue.h"
#include "pipeline/neuron_table.h"
#include "pipeline/sparse_stream.h"
#include "sys/memory.h"
#include "sys/thread_pool.h"

namespace stoke::pipeline {

class ClusterRing final : public ClusterSource, private ReadClient {
 public:
  struct Options {
    int64_t clusters = 2 * SparseStream::kWaveClusters;  // buffers; at least a wave
    uint32_t gap_bytes = 0;                              // as FetchOptions
    bool use_cache = true;
  };
  // cache and queue may be null where every neuron is hot.
  ClusterRing(std::span<const NeuronTable> tables, cache::UnitCache* cache, IoQueue* queue, sys::ThreadPool& threads,
              const Options& options);
  ~ClusterRing() override;
  ClusterRing(const ClusterRing&) = delete;
  ClusterRing& operator=(const ClusterRing&) = delete;
  static size_t bytes(std::span<const NeuronTable> tables, const Options& options);

  // Neurons [first, first + count) of the table will be acquired after everything expected before.
  void expect(const NeuronTable& table, int64_t first, int64_t count);
  // Whether the next cluster that it expects is this one.
  bool expects(const NeuronTable& table, int64_t first) const;
  // Forgets what was expected; waits for what is in flight. Requires: nothing acquired.
  void flush();

  Result<const std::byte*> acquire(const NeuronTable& table, int64_t first, int64_t count) override;
  void release(const NeuronTable& table, int64_t first, int64_t count, const int32_t* uses) override;
  void poll() override;

  uint64_t reads() const { return reads_; }
  uint64_t read_bytes() const { return read_bytes_; }

 private:
  // Clusters [next, end) of a table that are still to be read.
  struct Expected {
    const NeuronTable* table = nullptr;
    int64_t next = 0;
    int64_t end = 0;
  };
  struct Buffer {
    const NeuronTable* table = nullptr;
    int64_t first = 0;
    int64_t count = 0;
    const std::byte* records = nullptr;
    std::byte* data = nullptr;  // null until the first use; page-aligned
    uint64_t origin = 0;        // file offset of data
    bool hot = false;           // records are where they are
    int reads = 0;              // in flight
    int error = 0;
  };
  struct Run {
    uint64_t begin = 0;  // file offsets
    uint64_t end = 0;
  };

  void on_read(const io::Read& read, const io::Done& done) override;
  void fill();
  bool start_next(bool must);
  bool start(const NeuronTable& table, int64_t first, int64_t count, bool must);
  size_t find_runs(Buffer& buffer);
  bool copy_cached(Buffer& buffer, int64_t i);
  void push_run(Buffer& buffer, int32_t number, const Run& run, IoQueue::Priority priority);
  int64_t first_damaged(const Buffer& buffer);
  Status complete(Buffer& buffer, int32_t number);
  Status failure(const Buffer& buffer, int64_t damaged) const;
  void feed_cache(const Buffer& buffer, const int32_t* uses);
  Buffer& at(int64_t position) { return buffers_[static_cast<size_t>(position) % buffers_.size()]; }
  std::byte* place(const Buffer& b, int64_t i) const {
    return b.data + (b.table->records.offset_of(b.first + i) - b.origin);
  }

  cache::UnitCache* cache_;
  IoQueue* queue_;
  sys::ThreadPool& threads_;
  Options options_;
  sys::Memory memory_;
  std::vector<Buffer> buffers_;
  std::vector<Expected> expected_;  // a ring would be more than the few that there are
  std::vector<Run> runs_;
  std::vector<uint8_t> damaged_;  // by record of a cluster
  // Positions count up: [released_, acquired_) are held, [acquired_, started_) being read or ready.
  int64_t released_ = 0, acquired_ = 0, started_ = 0;
  int out_ = 0;
  uint64_t reads_ = 0;
  uint64_t read_bytes_ = 0;
};

}  // namespace stoke::pipeline
