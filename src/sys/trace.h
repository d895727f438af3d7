// A recorder of what a model does when, written as Chrome trace JSON (Perfetto and chrome://tracing open it).
//
// One track for each worker of a thread pool, one for reads. A track is a ring of fixed size, taken and touched at
// opening: recording allocates nothing and takes no lock, and the oldest events go first; the file says how many went.
// Who records holds a pointer that is null where nobody traces, so that a trace costs one comparison when it is off.
// Spans nest: an event is recorded at its end, so what a full ring loses is inner, earlier ones.
// Thread role: each worker records on its own track; reads, and the control thread's events, come from the control
// thread, which also writes, while no run of the pool is under way. Ownership: values; files are remembered by address
// and name, and may be gone when the trace is written. Errors: open() and write(), naming the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "sys/clock.h"
#include "sys/files.h"

namespace stoke::sys {

// Each has a row in trace.cc: its name, and what a and b of its events mean.
enum class TraceKind : uint8_t {
  kOpen,
  kPrompt,      // one pass of a prompt
  kToken,       // one decoding step
  kEmbedding,   // rows of a pass
  kAttention,   // of a layer
  kFfn,         // of a layer
  kLogits,      // of a pass
  kWork,        // a worker's part of one run of the pool
  kWorkerWait,  // the control thread, until the others have finished their parts
  kGates,       // a tile of a cluster's gates
  kCluster,     // up and down of what fired
  kClusters,    // a wave of whole clusters
  kDiskWait,    // nothing to compute until a read arrives
  kCount,
};

struct TraceEvent {
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t a = 0;
  int64_t b = 0;
  TraceKind kind = TraceKind::kWork;
};

class Trace {
 public:
  struct Options {
    std::string path;
    int workers = 1;
    int64_t events = int64_t{1} << 16;  // kept for each track
  };
  // Creates the file at once: a path that cannot be written is refused before any work is done.
  static Result<std::unique_ptr<Trace>> open(const Options& options);
  // Writes what write() has not.
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  // Bytes that a trace takes.
  static int64_t bytes(const Options& options);

  int64_t now_ns() const { return clock_.now_ns(); }
  void add(int worker, const TraceEvent& event) { tracks_[static_cast<size_t>(worker)].add(event); }
  // From the moment it was submitted until it was taken. `bytes` that came.
  void add_read(const File* file, uint64_t offset, uint32_t bytes, int64_t start_ns);
  // The name that reads of this file are shown with.
  void name_file(const File& file) { files_.emplace_back(&file, file.path()); }
  void set_process(std::string name) { process_ = std::move(name); }

  // Writes the file and ends the recording. The second call does nothing.
  Status write();

 private:
  struct ReadEvent {
    int64_t start_ns = 0;
    int64_t end_ns = 0;
    uint64_t offset = 0;
    uint32_t bytes = 0;
    int32_t file = -1;
  };
  // The latest events of one thread, each ring on cache lines of its own.
  template <typename Event>
  struct alignas(64) Ring {
    std::vector<Event> events;
    uint64_t added = 0;
    void add(const Event& event) { events[added++ % events.size()] = event; }
    uint64_t dropped() const { return added > events.size() ? added - events.size() : 0; }
  };
  class Writer;

  explicit Trace(const Options& options, File file);
  void write_names(Writer& out) const;
  void write_track(Writer& out, size_t worker) const;
  void write_reads(Writer& out) const;
  std::string footer() const;

  SystemClock clock_;
  File file_;
  int64_t opened_ns_ = 0;
  std::string process_ = "stoke";
  std::vector<Ring<TraceEvent>> tracks_;
  Ring<ReadEvent> reads_;
  std::vector<std::pair<const File*, std::string>> files_;
  bool written_ = false;
};

// Records the time between its construction and its end; does nothing where trace is null.
class TraceSpan {
 public:
  TraceSpan(Trace* trace, int worker, TraceKind kind, int64_t a = 0, int64_t b = 0)
      : trace_(trace), worker_(worker), event_{.start_ns = 0, .end_ns = 0, .a = a, .b = b, .kind = kind} {
    if (trace_ != nullptr) event_.start_ns = trace_->now_ns();
  }
  ~TraceSpan() {
    if (trace_ == nullptr) return;
    event_.end_ns = trace_->now_ns();
    trace_->add(worker_, event_);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  Trace* trace_;
  int worker_;
  TraceEvent event_;
};

}  // namespace stoke::sys
