// Time as a value that tests can hold: everything that measures or waits by the clock is given one of these.
//
// Thread role: any. Ownership: the clock outlives what it was given to.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace stoke::sys {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since some fixed moment; never goes back.
  virtual int64_t now_ns() const = 0;
  double now_s() const { return static_cast<double>(now_ns()) * 1e-9; }
};

class SystemClock final : public Clock {
 public:
  int64_t now_ns() const override {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
  }
};

// Stands still until told.
class ManualClock final : public Clock {
 public:
  int64_t now_ns() const override { return now_.load(std::memory_order_relaxed); }
  void advance_ns(int64_t ns) { now_.fetch_add(ns, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> now_{0};
};

// Seconds since construction or restart().
class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(&clock), start_(clock.now_ns()) {}
  void restart() { start_ = clock_->now_ns(); }
  double seconds() const { return static_cast<double>(clock_->now_ns() - start_) * 1e-9; }

 private:
  const Clock* clock_;
  int64_t start_;
};

}  // namespace stoke::sys
