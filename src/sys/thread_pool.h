// A fixed pool of compute threads for fork-join work. The caller is worker 0.
//
// run(fn) calls fn(worker) once on every worker and returns when all have returned: the only barrier stoke has.
// Workers spin for a short while after a run (a decode step makes hundreds of runs a few microseconds apart) and then
// sleep on a futex, so that an idle process costs nothing.
// The caller polls while it computes and waits: a hook runs on it between chunks of parallel_for and at the barrier, so
// that reads are started and taken without a thread of their own.
// A trace, where there is one, has a track for each worker; who splits work over a pool records its own spans there.
// Thread role: run() by the one control thread. Ownership: the pool joins its threads when destroyed; the trace
// outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "sys/trace.h"

namespace stoke::sys {

// A view of a callable void(int worker); the callable must outlive the call.
class WorkRef {
 public:
  template <typename F>
  WorkRef(F& f)  // NOLINT(google-explicit-constructor)
      : object_(&f), call_([](void* o, int worker) { (*static_cast<F*>(o))(worker); }) {}
  void operator()(int worker) const { call_(object_, worker); }

 private:
  void* object_;
  void (*call_)(void*, int);
};

class ThreadPool {
 public:
  // threads >= 1 in all, the caller included. Where the system allows fewer, size() is less.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;
  // `poll(context)` must be cheap where there is nothing to do; null: none. Not while a run is under way.
  void set_poll(void (*poll)(void*), void* context);
  // Null: nobody traces. Not while a run is under way.
  void set_trace(Trace* trace);
  Trace* trace() const { return trace_; }
  void run(WorkRef work);
  // Splits [0, n) into chunks of `grain`: fn(begin, end, worker). Each worker has a part of its own and takes its
  // chunks in ascending order, then what others have not begun: memory that lies together is read by one core, whose
  // prefetches past a chunk's end are not in vain (reading every other block of 32 rows loses about 15 % of the rate).
  // Which worker takes a chunk must not matter to the result.
  template <typename F>
  void parallel_for(int64_t n, int64_t grain, F&& fn);

 private:
  struct State;
  void poll() const {
    if (poll_ != nullptr) poll_(poll_context_);
  }
  void share_chunks(int64_t n, int64_t grain);
  int64_t next_chunk(int worker, int64_t grain);  // -1: none is left
  void finish_run();
  std::unique_ptr<State> state_;
  Trace* trace_ = nullptr;
  void (*poll_)(void*) = nullptr;
  void* poll_context_ = nullptr;
};

template <typename F>
void ThreadPool::parallel_for(int64_t n, int64_t grain, F&& fn) {
  if (n <= 0) return;
  if (size() == 1 || n <= grain) {
    fn(int64_t{0}, n, 0);
    return;
  }
  share_chunks(n, grain);
  auto work = [&](int worker) {
    for (int64_t begin = next_chunk(worker, grain); begin >= 0; begin = next_chunk(worker, grain)) {
      fn(begin, begin + grain < n ? begin + grain : n, worker);
      if (worker == 0) poll();
    }
  };
  run(work);
}

}  // namespace stoke::sys
