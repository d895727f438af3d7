// A small io_uring for reads, the only place that knows liburing: prepare some, submit them, take what is done.
//
// A plain ring: no registered files or buffers (docs/reads.md has what they would save), so nothing is counted against
// the limit of lockable memory on any kernel from 5.12 on. Where the library was built without liburing, or the kernel
// or container refuses io_uring, open() is kUnsupported and says why.
// Thread role: one thread. Ownership: buffers and files are the caller's until their reads are taken. Destroying a ring
// does not wait for its reads: take them all before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/status.h"
#include "sys/files.h"

namespace stoke::sys {

class Uring {
 public:
  // Room for `depth` reads in flight.
  static Result<Uring> open(int depth);
  Uring(Uring&&) noexcept;
  Uring& operator=(Uring&&) noexcept;
  ~Uring();

  // No system call. Requires: fewer than `depth` reads are in flight. `slot` comes back with the result.
  void prepare_read(const File& file, std::byte* dst, uint32_t bytes, uint64_t offset, int slot);
  // Starts what was prepared, in the order of preparation, and with kForOne waits until at least one read is done; one
  // system call. Returns how many were started (a busy kernel may leave some for the next call; an interruption starts
  // none), or a negated errno.
  enum class Wait { kNo, kForOne };
  int submit(Wait wait);
  // Waits until at least one read is done, and starts none. 0, or a negated errno.
  int wait();

  struct Done {
    int slot = 0;
    int64_t result = 0;  // bytes, or a negated errno
  };
  // One finished read; nullopt when there is none now. Looks at memory shared with the kernel: no system call.
  std::optional<Done> take();

 private:
  struct Ring;
  explicit Uring(std::unique_ptr<Ring> ring);
  std::unique_ptr<Ring> ring_;
};

}  // namespace stoke::sys
