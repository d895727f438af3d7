// Faults memory in ahead of its use, on a thread of its own.
//
// The first touch of memory costs the kernel a cleared page, and on a virtual machine the host another: up to a second
// a gigabyte was seen (docs/reads.md). Reads that land in untouched memory pay that on the thread that submits them.
// Thread role: start() and stop() by one thread. Ownership: the memories stay the caller's, and stay until stop().
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "sys/memory.h"

namespace stoke::sys {

class Populator {
 public:
  Populator();
  ~Populator();
  Populator(const Populator&) = delete;
  Populator& operator=(const Populator&) = delete;

  struct Range {
    const Memory* memory = nullptr;
    size_t bytes = 0;  // from its beginning
  };
  // Populates these one after another, and no others any more. What is there already costs next to nothing. A hint:
  // where no thread is to be had, nothing happens.
  void start(std::vector<Range> ranges);
  // Ends it soon, and returns when it has ended: afterwards nothing comes back that is discarded.
  void stop();

 private:
  struct Worker;
  std::unique_ptr<Worker> worker_;
};

}  // namespace stoke::sys
