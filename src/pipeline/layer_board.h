// Where the threads of one layer meet: queues of what is ready to be computed, countdowns, and the end.
//
// All values are job, tile or lease numbers; what they stand for is plain memory that is written before a number is
// pushed and read after it is taken (push releases, take acquires). No locks, nothing is allocated after construction.
// Thread role: reset() by the control thread while no worker runs; everything else by any worker.
// Ownership: owns its words. Errors: none; pushing more than the capacity is a bug.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "sys/spin.h"

namespace stoke::pipeline {

// Numbers pushed by anyone and taken by anyone, each once. Between two resets at most `capacity` pushes.
class OnceQueue {
 public:
  explicit OnceQueue(size_t capacity) : items_(capacity) {}

  void reset() {
    const size_t used = tail_.load(std::memory_order_relaxed);
    for (size_t i = 0; i < used; ++i) items_[i].store(0, std::memory_order_relaxed);
    tail_.store(0, std::memory_order_relaxed);
    head_.store(0, std::memory_order_relaxed);
  }
  void push(int32_t value) {
    const size_t at = tail_.fetch_add(1, std::memory_order_relaxed);
    CHECK(at < items_.size());
    items_[at].store(value + 1, std::memory_order_release);
  }
  // The oldest, or -1 where there is none at hand.
  int32_t take() {
    size_t at = head_.load(std::memory_order_relaxed);
    while (at < items_.size()) {
      const int32_t value = items_[at].load(std::memory_order_acquire);
      if (value == 0) return -1;
      if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) return value - 1;
    }
    return -1;
  }
  size_t pushed() const { return tail_.load(std::memory_order_relaxed); }
  // A glance: others may take at the same time.
  size_t waiting() const {
    const size_t head = head_.load(std::memory_order_relaxed);
    const size_t tail = tail_.load(std::memory_order_relaxed);
    return tail > head ? tail - head : 0;
  }
  size_t capacity() const { return items_.size(); }
  static size_t bytes(size_t capacity) { return capacity * sizeof(std::atomic<int32_t>); }

 private:
  std::vector<std::atomic<int32_t>> items_;  // value + 1; 0: not pushed
  alignas(64) std::atomic<size_t> tail_{0};
  alignas(64) std::atomic<size_t> head_{0};
};

class LayerBoard {
 public:
  LayerBoard(size_t jobs, size_t tile_capacity, size_t lease_capacity)
      : tiles(tile_capacity),
        gated(jobs),
        ready_cached(jobs),
        ready_read(2 * jobs),
        finished(2 * jobs),
        gate_rows_left_(jobs),
        lease_rows_left_(lease_capacity) {}
  static size_t bytes(size_t jobs, size_t tile_capacity, size_t lease_capacity) {
    return OnceQueue::bytes(tile_capacity) + 7 * OnceQueue::bytes(jobs) + OnceQueue::bytes(lease_capacity);
  }

  void reset() {
    for (OnceQueue* queue : {&tiles, &gated, &ready_cached, &ready_read, &finished}) queue->reset();
    over_.store(false, std::memory_order_relaxed);
    held_.store(false, std::memory_order_relaxed);
  }

  OnceQueue tiles;         // gate rows that are leased and not yet computed
  OnceQueue gated;         // jobs whose active neurons are known and not all hot: for the control thread
  OnceQueue ready_cached;  // jobs whose records are at hand, and were so at once
  OnceQueue ready_read;    // jobs whose records have all arrived; twice where some were damaged
  OnceQueue finished;      // jobs that are done, or have damaged records: for the control thread

  void set_gate_rows(int32_t job, int32_t rows) { gate_rows_left_[at(job)].store(rows, std::memory_order_relaxed); }
  // True for whoever computed the last of a job's gate rows; all of them are visible to it.
  bool count_gate_rows(int32_t job, int32_t rows) {
    return gate_rows_left_[at(job)].fetch_sub(rows, std::memory_order_acq_rel) == rows;
  }
  void set_lease_rows(int32_t lease, int32_t rows) {
    lease_rows_left_[at(lease)].store(rows, std::memory_order_relaxed);
  }
  void count_lease_rows(int32_t lease, int32_t rows) {
    lease_rows_left_[at(lease)].fetch_sub(rows, std::memory_order_acq_rel);
  }
  bool lease_done(int32_t lease) const { return lease_rows_left_[at(lease)].load(std::memory_order_acquire) == 0; }

  void end() { over_.store(true, std::memory_order_release); }
  bool over() const { return over_.load(std::memory_order_acquire); }
  // Ready jobs are to wait (the paper's ablation).
  void hold(bool held) { held_.store(held, std::memory_order_relaxed); }
  bool held() const { return held_.load(std::memory_order_relaxed); }

 private:
  static size_t at(int32_t index) { return static_cast<size_t>(index); }
  std::vector<std::atomic<int32_t>> gate_rows_left_;
  std::vector<std::atomic<int32_t>> lease_rows_left_;
  alignas(64) std::atomic<bool> over_{false};
  std::atomic<bool> held_{false};
};

// For a worker that found nothing to do: a pause of the processor, then the core is given away, then short sleeps: a
// layer whose records are not cached waits milliseconds for the disk.
class Idler {
 public:
  void worked() { idle_ = 0; }
  void rest() {
    constexpr int kSpins = 256;   // about 10 us
    constexpr int kYields = 128;  // about 100 us
    constexpr int64_t kNapUs = 20;
    ++idle_;
    if (idle_ < kSpins) return sys::cpu_relax();
    if (idle_ < kSpins + kYields) return sys::yield_core();
    sys::nap_us(kNapUs);
  }

 private:
  int idle_ = 0;
};

}  // namespace stoke::pipeline
