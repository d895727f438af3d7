// The weight source for models bigger than memory: row blocks in a fixed number of slots, read ahead of their use.
//
// Dense parts are a cyclic scan, for which recency has no hits at all: as many blocks as fit are pinned, spread evenly
// over the layers, and the rest streams through a small window of slots, read in the order of use, across layers and
// tokens, so that the disk never idles while a slot of the window is free. Experts are cached: a block that a router
// chose is looked up, read when it is missing, and stays until the policy finds a better use for its slot.
// Reads are direct where the file system allows it, past the page cache; otherwise what was cached is dropped again.
// Thread role: the control thread (workers read leased bytes). Reads are delivered from IoQueue::pump() or wait().
// Ownership: the arena is owned here; files and queue outlive the source. After construction nothing is allocated.
// Errors: a failed read surfaces from acquire() or read_row() as one line naming tensor, file and offset.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "model/weight_source.h"
#include "pipeline/block_checker.h"
#include "pipeline/io_queue.h"
#include "pipeline/row_reader.h"
#include "pipeline/unit_table.h"
#include "sys/checked_ranges.h"
#include "sys/memory.h"
#include "sys/populator.h"

namespace stoke::pipeline {

struct StreamOptions {
  int64_t slots = 0;                                   // of UnitTable::slot_bytes() each; see least_slots()
  int64_t window = 16;                                 // slots of dense blocks that stream; fewer where slots are few
  cache::PolicyKind policy = cache::PolicyKind::kLfu;  // of experts
  int64_t recent = 0;              // expert units a token uses: so many of the latest stay (unit_cache.h)
  int64_t expert_slots_least = 0;  // UnitTable::layer_expert_units()
};

// Since construction.
struct StreamCounts {
  uint64_t expert_hits = 0;
  uint64_t expert_misses = 0;
  uint64_t dense_hits = 0;  // blocks that were pinned
  uint64_t dense_misses = 0;
};

// kCorrupt: rows of a matrix, from `offset` in the file, do not have their checksum.
Status damaged_matrix(const std::string& path, const std::string& tensor, uint64_t offset);

class StreamSource final : public model::WeightSource, private ReadClient {
 public:
  StreamSource(UnitTable table, IoQueue& queue, sys::Memory arena, const StreamOptions& options);
  ~StreamSource() override;

  // Fewer than these make no progress, or none worth the name.
  // layer_units: UnitTable::layer_expert_units().
  static int64_t least_slots(const UnitTable& table, int64_t layer_units);
  int64_t least_slots() const { return least_slots(table_, options_.expert_slots_least); }
  // How slots are shared out.
  struct Share {
    int64_t window = 0;           // slots of dense blocks that stream
    int64_t pinned = 0;           // dense blocks that stay
    int64_t expert_slots = 0;     // the rest, where there are experts
    uint64_t dense_bytes = 0;     // of all dense blocks
    uint64_t streamed_bytes = 0;  // of those that every token streams
  };
  static Share share_slots(const UnitTable& table, const StreamOptions& options);
  // Slots that hold everything.
  static int64_t all_slots(const UnitTable& table) { return table.size(); }
  // Tables beside the arena.
  static size_t bookkeeping_bytes(const UnitTable& table, int64_t slots);

  // Fails waiting acquires with kCancelled; may be set by a signal handler.
  void watch(const std::atomic<bool>* cancel) { cancel_ = cancel; }
  // Holds what is read against checksums, as far as they are known; they outlive the source.
  void check_against(const sys::CheckedRanges* checks) {
    checks_ = checks;
    checker_.check_against(checks);
    rows_.check_against(checks);
  }
  // Starts reading what the first pass needs.
  void start();
  // Gives slots from the end of the arena back to the system, down to `slots`, or takes them again, up to the options'.
  // Fewer: waits for what is in flight. Requires: no lease. Returns the slots that there are, at least least_slots().
  int64_t resize(int64_t slots);
  // The slots' memory that may be touched.
  sys::Populator::Range memory() const { return {&arena_, static_cast<size_t>(cache_.slots()) * table_.slot_bytes()}; }

  const model::MatrixInfo& matrix(model::MatrixId id) const override { return table_.matrix(id).info; }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override;
  void release(model::MatrixId id, const RowsView& rows) override;
  void begin_pass(bool logits) override;
  void expect(std::span<const model::ExpectedProduct> products) override;
  bool guesses(const model::MatrixSlice& router) const override;
  void begin_guess() override;
  void guess(const model::ExpectedProduct& product) override;
  bool at_hand(model::MatrixId id, int64_t row) const override;
  bool help() override { return checker_.help(); }
  void expect_rows(model::MatrixId id, std::span<const int32_t> rows) override {
    rows_.expect(table_.matrix(id), rows);
  }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override {
    return rows_.read(table_.matrix(id), row, dst);
  }

  const UnitTable& table() const { return table_; }
  int64_t slots() const { return cache_.slots(); }
  int64_t pinned() const { return pinned_; }
  // Whole experts that there is room for, now.
  int64_t experts_held(const model::Config& config) const;
  const StreamCounts& counts() const { return counts_; }

 private:
  // What is known of a unit beside the cache's state.
  struct Live {
    cache::SlotId slot;  // loading, ready or leased
    bool pinned = false;
    bool pending = false;  // dense: in pending_
    bool held = false;     // expert: expect() keeps a lease for the acquire() to come
    bool wanted = false;   // expert: in expected_
    bool guessed = false;  // expert: in guessed_, or loading or held since it was; nobody has asked for it yet
    bool ahead = false;    // its read in flight is a guess's
    bool stale = false;    // dense: to be dropped when it arrives
    bool retried = false;
    int32_t leases = 0;  // given out by acquire()
  };
  // A ring of unit numbers of fixed size.
  class Ring {
   public:
    explicit Ring(size_t capacity) : items_(capacity) {}
    bool empty() const { return size_ == 0; }
    bool full() const { return size_ == items_.size(); }
    size_t size() const { return size_; }
    int32_t front() const { return items_[head_]; }
    void push(int32_t item) { items_[(head_ + size_++) % items_.size()] = item; }
    void pop() {
      head_ = (head_ + 1) % items_.size();
      --size_;
    }
    void clear() { size_ = 0; }

   private:
    std::vector<int32_t> items_;
    size_t head_ = 0;
    size_t size_ = 0;
  };

  void on_read(const io::Read& read, const io::Done& done) override;
  void finish_read(cache::UnitId id, const Status& failed);
  void take_checked();
  void settle();
  void choose_pinned();
  void unpin(cache::UnitId id);
  void unpin_evenly(int64_t count);
  void pin_evenly(int64_t count);
  void shrink(int64_t target, const Share& share);
  Live& live(cache::UnitId id) { return live_[static_cast<size_t>(id.index)]; }
  const Live& live(cache::UnitId id) const { return live_[static_cast<size_t>(id.index)]; }
  bool ready(cache::UnitId id) const { return cache_.state(id) == cache::UnitCache::State::kReady; }
  bool load(cache::UnitId id, IoQueue::Priority priority);
  io::Read read_of(cache::UnitId id, cache::SlotId slot) const;
  void advance();
  void reach(cache::UnitId id);
  void resync(cache::UnitId id);
  void drop(cache::UnitId id);
  void feed();
  void forget_expected();
  void claim(cache::UnitId id);
  void end_ahead(cache::UnitId id);
  void abandon_guess(cache::UnitId id);
  void feed_guesses();
  void loosen(cache::UnitId needed);
  bool ask(cache::UnitId id);
  Status no_slot(cache::UnitId id) const;
  Status wait_for(cache::UnitId id);
  std::byte* first_row(cache::UnitId id) const;
  // ok where nothing is damaged.
  Status damage_of(cache::UnitId id, std::optional<uint64_t> at) const;
  Status read_failure_of(cache::UnitId id, const io::Read& read, const io::Done& done) const;

  UnitTable table_;
  IoQueue& queue_;
  sys::Memory arena_;
  StreamOptions options_;
  int64_t window_ = 0;  // slots of dense blocks that stream, now
  cache::UnitCache cache_;
  std::vector<Live> live_;
  Ring pending_;                  // dense units asked for and not yet reached, in order
  Ring expected_;                 // expert units that will be acquired and are not yet asked for
  Ring guessed_;                  // expert units that may be, and are not yet asked for
  std::vector<int32_t> guesses_;  // every unit guessed since begin_guess()
  uint64_t guess_bytes_ = 0;      // of guesses in flight
  int64_t next_ = 0;              // position in the order of the next dense unit to ask for
  int64_t streaming_ = 0;         // slots that hold dense units which are not pinned; at most the window
  int64_t pinned_ = 0;
  bool wants_tail_ = true;
  RowReader rows_;
  const std::atomic<bool>* cancel_ = nullptr;
  const sys::CheckedRanges* checks_ = nullptr;
  BlockChecker checker_;  // of dense blocks, which are read long before they are needed
  Status failure_;
  StreamCounts counts_;
};

}  // namespace stoke::pipeline
