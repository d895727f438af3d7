// Asynchronous reads as plain requests: push some, submit them in one system call, take what is done.
//
// Three backends behind one interface (uring_reader.h, thread_reader.h, sim_reader.h), one conformance suite over all
// of them. A read is complete when all the bytes it must bring are in place: short reads are continued inside the
// backend. Reads may complete in any order. Slots for reads in flight are a fixed pool: nothing is allocated after
// construction (but for the text of a failure). Thread role: one thread, the control thread. Ownership: files and
// destination bytes are the caller's, and must stay until the read is taken. Destroying a reader waits for what is in
// flight. Errors: a Done carries the system's error number; read_failure() makes the one-line Status of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "sys/files.h"

namespace stoke::io {

struct Read {
  const sys::File* file = nullptr;
  uint64_t offset = 0;       // a multiple of file->alignment()
  uint32_t bytes = 0;        // likewise
  uint32_t at_least = 0;     // <= bytes: what must come; the end of the file may cut the rest
  std::byte* dst = nullptr;  // aligned to file->alignment()
  uint64_t tag = 0;          // comes back with the result
};

struct Done {
  uint64_t tag = 0;
  int error = 0;       // 0: the bytes are there; -1: the file ended before at_least; otherwise an errno
  uint32_t bytes = 0;  // that came
};

// Totals since construction.
struct ReadCounts {
  uint64_t reads = 0;
  uint64_t bytes = 0;
  uint64_t submits = 0;  // system calls that started reads
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual const char* name() const = 0;  // "io_uring", "threads", "simulator"
  virtual int depth() const = 0;         // reads that may be in flight
  virtual int in_flight() const = 0;     // pushed and not yet taken
  // Requires: in_flight() < depth().
  virtual void push(const Read& read) = 0;
  // Starts everything that was pushed. Never waits for a read.
  virtual void submit() = 0;
  // Takes what is done, at most out.size(); never waits. Makes no system call where that can be avoided.
  virtual size_t poll(std::span<Done> out) = 0;
  // The same, but waits until there is at least one; 0 only where nothing is in flight. Submits first.
  virtual size_t wait(std::span<Done> out) = 0;
  virtual ReadCounts counts() const = 0;
};

// One line: file, offset, bytes, what went wrong.
Status read_failure(const Read& read, const Done& done);

struct ReaderOptions {
  int depth = 32;
  enum class Backend { kAuto, kUring, kThreads } backend = Backend::kAuto;  // kAuto: io_uring, threads where refused
};
// `why` (may be null) says which backend was taken and why not the other.
Result<std::unique_ptr<Reader>> open_reader(const ReaderOptions& options, std::string* why);

}  // namespace stoke::io
