// One reader shared by those who read weights: routes each finished read to who asked for it, urgent reads first.
//
// Clients queue requests; pump() moves them to the reader (urgent ones before background ones, at most `depth` in
// flight), submits them in one system call and delivers what is done. pump() is cheap when there is nothing to do, and
// is called from the thread pool's poll hook, between tiles of work.
// Thread role: the control thread. Ownership: the reader outlives the queue, the queue its clients. Queues are of fixed
// size: nothing is allocated after construction. What a file that is not direct left in the page cache is dropped.
// Errors: delivered to the client with the read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "io/reader.h"
#include "sys/clock.h"
#include "sys/trace.h"

namespace stoke::pipeline {

class ReadClient {
 public:
  virtual ~ReadClient() = default;
  // A read that it queued has ended. Called from pump() or wait(); may queue more.
  virtual void on_read(const io::Read& read, const io::Done& done) = 0;
};

class IoQueue {
 public:
  enum class Priority { kUrgent, kBackground };

  // capacity: requests that may wait for a place in flight, for each priority.
  IoQueue(io::Reader& reader, const sys::Clock& clock, size_t capacity);

  // False when the queue of that priority is full: pump() or wait() first.
  bool push(ReadClient& client, const io::Read& read, Priority priority);
  size_t room(Priority priority) const;
  // Starts what can be started, delivers what is done; never waits. Returns how many were delivered.
  size_t pump();
  // As pump(), but waits until something was delivered; returns at once where nothing is queued or in flight.
  // The time spent here is the stall time: there was nothing to compute.
  size_t wait();
  // While held, background reads start only where nothing else is queued or in flight, one at a time: urgent ones are
  // about to come, and a disk that serves requests in turn lets them wait for every megabyte that was asked for before.
  void hold_background(bool held) { background_held_ = held; }
  bool idle() const { return in_flight_ == 0 && queued() == 0; }
  size_t queued() const;
  bool urgent_queued() const { return urgent_.size > 0; }
  int in_flight() const { return in_flight_; }

  // Reads and waits go there; null: nobody traces. The trace outlives the queue.
  void set_trace(sys::Trace* trace) { trace_ = trace; }

  int64_t stall_ns() const { return stall_ns_; }
  io::ReadCounts counts() const { return reader_.counts(); }

 private:
  // Large reads beyond this in flight were about 20 % slower (docs/reads.md).
  static constexpr uint64_t kBytesInFlight = uint64_t{8} << 20;
  struct Request {
    ReadClient* client = nullptr;
    io::Read read;
    int64_t submitted_ns = 0;  // where there is a trace
  };
  // A ring of fixed size.
  struct Ring {
    std::vector<Request> items;
    size_t head = 0;
    size_t size = 0;
  };
  static Request take(Ring& ring);
  Ring* next();
  void start();
  size_t deliver(size_t count);

  io::Reader& reader_;
  const sys::Clock& clock_;
  sys::Trace* trace_ = nullptr;
  Ring urgent_;
  Ring background_;
  std::vector<Request> flying_;   // by the reader's tag
  std::vector<uint32_t> unused_;  // tags
  std::vector<io::Done> done_;
  bool background_held_ = false;
  int in_flight_ = 0;
  uint64_t bytes_in_flight_ = 0;
  int64_t stall_ns_ = 0;
};

}  // namespace stoke::pipeline
