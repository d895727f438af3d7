// Brings the records of active neurons that are not hot: from the cache, or by reads that land in it.
//
// Jobs are admitted in order: every active neuron is looked up, misses take a slot of the cache or, where its policy
// refuses, a place of a small transient pool; neighbouring misses share a read where the bytes between them cost less
// than a request. Reads of one record go straight into its slot where alignment allows; others are aligned supersets
// that land in a bounce buffer and are copied. A record is checked against its checksum by the thread that computes it
// (check_fresh); what is wrong is read once more, and checked on arrival. A job whose records are all at hand goes to
// the board's ready queues. Never a deadlock: only the oldest job waits for places, all before it are complete and will
// free theirs, and the transient pool alone holds a whole cluster. Thread role: the control thread. Ownership: cache,
// queue and board are the caller's; buffers are its own. After construction nothing is allocated (but for the text of a
// failure). Errors: status(): kIo, kCorrupt, naming layer, neuron, file and offset. Then advance() starts nothing more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "pipeline/cluster_job.h"
#include "pipeline/io_queue.h"
#include "pipeline/layer_board.h"
#include "sys/memory.h"

namespace stoke::pipeline {

struct FetchOptions {
  size_t record_bytes_max = 0;           // of all tables
  uint32_t read_bytes_max = 32 << 10;    // of neighbouring misses in one read
  uint32_t gap_bytes = 0;                // what a request costs in bytes read in its time (the measured disk says)
  int bounces = 64;                      // reads through bounce buffers at a time
  int transients = 2 * kClusterNeurons;  // records that the cache did not take; at least kClusterNeurons
  bool use_cache = true;                 // false: every miss is read into the transient pool
};

struct FetchCounts {
  uint64_t lookups = 0;
  uint64_t hot_hits = 0;
  uint64_t cache_hits = 0;
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t refused = 0;  // misses that the cache did not take
  uint64_t reread = 0;   // reads made again
};

class RecordFetcher final : public ReadClient {
 public:
  RecordFetcher(const FetchOptions& options, cache::UnitCache* cache, IoQueue& queue, LayerBoard& board, size_t jobs);
  static size_t bytes(const FetchOptions& options);

  // A new layer. Requires: idle.
  void begin(const NeuronTable& table, std::span<ClusterJob> jobs);
  // Queues a job whose active neurons are known.
  void admit(int32_t job) {
    jobs_[static_cast<size_t>(job)].fetched = true;
    waiting_.push_back(job);
  }
  // Goes on with the oldest jobs as far as there is room; pushes reads, does not start them.
  void advance();
  // Holds the fresh records of a ready job against their checksums; false where one is damaged. By the thread that is
  // about to compute it, which has use for them in its cache; the control thread has more to do than the others.
  static bool check_fresh(const NeuronTable& table, ClusterJob& job);
  // Reads the damaged records of a job once more; then it is ready again. May wait for room.
  void read_again(int32_t job);
  // The job was computed: its leases and places are free again.
  void finish(int32_t job);
  // After a failure: waits for what is in flight and frees everything that jobs hold.
  void abandon();

  // Whether the reads of all admitted jobs are queued.
  bool all_asked() const { return admitted_ == waiting_.size(); }
  bool reading() const { return out_ > 0; }
  // Whether jobs are admitted that wait for places which only finished jobs can free.
  bool blocked() const { return blocked_; }
  const Status& status() const { return status_; }
  const FetchCounts& counts() const { return counts_; }

  void on_read(const io::Read& read, const io::Done& done) override;

 private:
  // One read: of the missing records among the job's actives [first, last].
  struct Fetch {
    int32_t job = 0;
    int32_t first = 0;
    int32_t last = 0;
    int32_t bounce = -1;  // -1: straight into the slot
    int attempts = 0;
    io::Read read;
  };
  bool look_up(ClusterJob& job);
  bool place_miss(ClusterJob& job, int32_t i);
  bool issue(int32_t number, ClusterJob& job);
  bool start(int32_t number, const ClusterJob& job, int32_t first, int32_t last, int attempts);
  bool push_again();
  void deliver(const Fetch& fetch);
  const std::byte* source(const Fetch& fetch, int64_t neuron) const;
  std::byte* destination(int32_t place) const;
  void retire(int32_t id);
  void free_place(int32_t place, bool arrived);
  void leave(ClusterJob& job, int32_t i);
  void fail(const Fetch& fetch, const io::Done& done);
  cache::UnitId unit(int64_t neuron) const { return {static_cast<int32_t>(table_->first_unit + neuron)}; }

  FetchOptions options_;
  cache::UnitCache* cache_;
  IoQueue& queue_;
  LayerBoard& board_;
  const NeuronTable* table_ = nullptr;
  std::span<ClusterJob> jobs_;
  sys::Memory memory_;  // transient places, then bounce buffers
  size_t bounce_bytes_ = 0;
  std::vector<int32_t> free_transients_, free_bounces_, free_fetches_;
  std::vector<Fetch> fetches_;
  std::vector<int32_t> again_;    // fetches to be pushed once more
  std::vector<int32_t> waiting_;  // jobs in order of admission; [admitted_, end) are not complete
  size_t admitted_ = 0;
  int32_t looked_up_ = 0;  // of the oldest waiting job: actives that have a place
  int32_t issued_ = 0;     // ... and whose reads are pushed
  int32_t misses_ = 0;     // ... that were not at hand
  bool missed_ = false;    // its next active was looked for already
  bool blocked_ = false;
  int out_ = 0;
  FetchCounts counts_;
  Status status_;
};

}  // namespace stoke::pipeline
