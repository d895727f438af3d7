// A small io_uring for reads: prepare some, submit and wait for one, take what is done.
//
// Where the library was built without liburing, or the kernel or container refuses io_uring, open() is kUnsupported and
// says why. Thread role: one thread. Ownership: buffers and files are the caller's until their reads are taken.
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

  // Requires: fewer than `depth` reads are in flight. `slot` comes back with the result.
  void prepare_read(const File& file, std::byte* dst, uint32_t bytes, uint64_t offset, int slot);
  // Submits what was prepared and waits until at least one read is done.
  Status submit_and_wait();

  struct Done {
    int slot = 0;
    int64_t result = 0;  // bytes, or a negated errno
  };
  // One finished read; nullopt when there is none now.
  std::optional<Done> take();

 private:
  struct Ring;
  explicit Uring(std::unique_ptr<Ring> ring);
  std::unique_ptr<Ring> ring_;
};

}  // namespace stoke::sys
