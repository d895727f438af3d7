#include "sys/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "base/check.h"
#include "sys/spin.h"

namespace stoke::sys {
namespace {

using SpinClock = std::chrono::steady_clock;

// How long a waiter burns its core before it gives it away. Between two runs of a decode step lie a few microseconds,
// so the hot phase always covers them; the polite phase yields between polls, for a core that others want too.
constexpr auto kHotSpin = std::chrono::microseconds(20);
constexpr auto kPoliteSpin = std::chrono::microseconds(80);
constexpr auto kNoSpin = std::chrono::microseconds(0);
constexpr int kPollsPerClockRead = 16;

int allowed_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

// Polls `ready` for a while: first hot, then yielding. Returns whether it became true.
template <typename Ready>
bool spin_until(bool oversubscribed, Ready ready) {
  for (int i = 0; i < kPollsPerClockRead; ++i) {
    if (ready()) return true;
    cpu_relax();
  }
  const auto start = SpinClock::now();
  const auto hot_end = start + (oversubscribed ? kNoSpin : kHotSpin);
  const auto end = start + kPoliteSpin;
  for (auto now = start; now < end; now = SpinClock::now()) {
    if (now < hot_end) {
      for (int i = 0; i < kPollsPerClockRead; ++i) {
        if (ready()) return true;
        cpu_relax();
      }
    } else {
      if (ready()) return true;
      sched_yield();
    }
  }
  return ready();
}

// One worker's part of the items of a parallel_for.
struct alignas(64) Part {
  std::atomic<int64_t> next{0};  // first item that nobody has taken
  int64_t end = 0;               // published by epoch
};

}  // namespace

// Each word that one side writes and the other polls has its own cache line.
struct ThreadPool::State {
  explicit State(int threads)
      : size(threads), oversubscribed(threads > allowed_cpus()), parts(static_cast<size_t>(threads)) {}

  void worker_main(int worker);
  void do_part(int worker);
  void wait_epoch(uint32_t seen);
  void wait_workers();

  int size;
  const bool oversubscribed;
  const WorkRef* work = nullptr;  // published by epoch
  bool stop = false;              // published by epoch
  Trace* trace = nullptr;         // published by epoch
  std::vector<std::thread> threads;
  alignas(64) std::atomic<uint32_t> epoch{0};     // one more for each run
  alignas(64) std::atomic<uint32_t> running{0};   // workers that have not finished this run
  alignas(64) std::atomic<uint32_t> sleepers{0};  // workers on the way into a futex sleep, or in it
  std::atomic<bool> caller_sleeps{false};
  std::vector<Part> parts;  // one a worker
};

// The sequentially consistent pairs (epoch, sleepers) and (running, caller_sleeps) are what makes a wake-up impossible
// to lose: whoever is second sees the other's write, and the kernel compares the word once more before it sleeps.
void ThreadPool::State::wait_epoch(uint32_t seen) {
  const auto ready = [&] { return epoch.load(std::memory_order_acquire) != seen; };
  if (spin_until(oversubscribed, ready)) return;
  sleepers.fetch_add(1);
  while (epoch.load() == seen) futex_wait(epoch, seen);
  sleepers.fetch_sub(1);
}

void ThreadPool::State::wait_workers() {
  const auto ready = [&] { return running.load(std::memory_order_acquire) == 0; };
  if (spin_until(oversubscribed, ready)) return;
  caller_sleeps.store(true);
  for (uint32_t left = running.load(); left != 0; left = running.load()) futex_wait(running, left);
  caller_sleeps.store(false, std::memory_order_relaxed);
}

void ThreadPool::State::do_part(int worker) {
  const TraceSpan span(trace, worker, TraceKind::kWork);
  (*work)(worker);
}

void ThreadPool::State::worker_main(int worker) {
  for (uint32_t seen = 0;; ++seen) {
    wait_epoch(seen);
    if (stop) return;
    do_part(worker);
    if (running.fetch_sub(1) == 1 && caller_sleeps.load()) futex_wake_all(running);
  }
}

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(threads)) {
  CHECK(threads >= 1);
  State& s = *state_;
  try {
    for (int worker = 1; worker < threads; ++worker) {
      s.threads.emplace_back([&s, worker] { s.worker_main(worker); });
    }
  } catch (const std::system_error&) {
    s.size = static_cast<int>(s.threads.size()) + 1;  // a container may allow fewer; those there are do the work
  }
}

ThreadPool::~ThreadPool() {
  State& s = *state_;
  s.stop = true;
  s.epoch.fetch_add(1);
  futex_wake_all(s.epoch);
  for (std::thread& thread : s.threads) thread.join();
}

int ThreadPool::size() const { return state_->size; }

void ThreadPool::run(WorkRef work) {
  State& s = *state_;
  s.work = &work;
  if (s.size == 1) return s.do_part(0);
  s.running.store(static_cast<uint32_t>(s.size - 1), std::memory_order_relaxed);
  s.epoch.fetch_add(1);
  if (s.sleepers.load() != 0) futex_wake_all(s.epoch);
  s.do_part(0);
  if (s.running.load(std::memory_order_acquire) != 0) finish_run();
}

// Until the other workers have done their parts.
void ThreadPool::finish_run() {
  State& s = *state_;
  const TraceSpan span(trace_, 0, TraceKind::kWorkerWait);
  if (poll_ != nullptr) {
    // Reads finish while the others compute: a sleeping caller would leave the disk idle.
    spin_until(s.oversubscribed, [&] {
      poll_(poll_context_);
      return s.running.load(std::memory_order_acquire) == 0;
    });
    while (s.running.load(std::memory_order_acquire) != 0) {
      poll_(poll_context_);
      sched_yield();
    }
    return;
  }
  s.wait_workers();
}

void ThreadPool::set_poll(void (*poll)(void*), void* context) {
  poll_ = poll;
  poll_context_ = context;
}

void ThreadPool::set_trace(Trace* trace) { trace_ = state_->trace = trace; }

void ThreadPool::share_chunks(int64_t n, int64_t grain) {
  const int64_t chunks = (n + grain - 1) / grain;
  for (int64_t worker = 0; worker < state_->size; ++worker) {
    Part& part = state_->parts[static_cast<size_t>(worker)];
    part.next.store(chunks * worker / state_->size * grain, std::memory_order_relaxed);
    part.end = std::min(chunks * (worker + 1) / state_->size * grain, n);
  }
}

int64_t ThreadPool::next_chunk(int worker, int64_t grain) {
  for (int i = 0; i < state_->size; ++i) {
    Part& part = state_->parts[static_cast<size_t>((worker + i) % state_->size)];
    if (part.next.load(std::memory_order_relaxed) >= part.end) continue;
    const int64_t begin = part.next.fetch_add(grain, std::memory_order_relaxed);
    if (begin < part.end) return begin;
  }
  return -1;
}

}  // namespace stoke::sys
