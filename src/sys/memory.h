// Memory that we own: large anonymous mappings, and what the process and the machine hold.
//
// Thread role: any; a Memory is written by whoever its owner says. Ownership: a Memory unmaps itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/status.h"

namespace stoke::sys {

// Zero-filled anonymous memory, at least page-aligned (2 MiB-aligned from 2 MiB up, so that huge pages fit).
class Memory {
 public:
  Memory() = default;
  ~Memory();
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Reserves `bytes` and advises huge pages; physical memory comes with the first touch. kNoMemory when refused.
  static Result<Memory> map(size_t bytes);

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // Faults a range in now, which costs less than faults taken one by one inside a copy. A hint: where the kernel does
  // not know how (before 5.14), nothing happens. Safe while other threads use the memory.
  void populate(size_t offset, size_t bytes) const;
  // Gives a range's pages back; they read as zeros afterwards.
  void discard(size_t offset, size_t bytes) const;

 private:
  std::byte* data_ = nullptr;  // within mapping_, aligned
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
};

// Gives the whole pages of any memory back, and has them come again one by one as small ones: in a huge page, the first
// bytes of a buffer would bring its other 2 MiB along. They read as zeros afterwards.
void discard_pages(std::byte* data, size_t bytes);

// Gives back what the heap keeps of freed memory, after much of it was used for a moment.
void trim_heap();

// What this process holds, from /proc/self/status (bytes).
struct ProcessMemory {
  uint64_t rss = 0;        // all resident
  uint64_t rss_peak = 0;   // the most `rss` ever was (VmHWM; counts mapped files too)
  uint64_t anonymous = 0;  // resident anonymous
  uint64_t file = 0;       // resident file mappings
  uint64_t shared = 0;     // resident shared memory
  uint64_t locked = 0;
  uint64_t swapped = 0;
};
ProcessMemory process_memory();

// What the machine has, from /proc/meminfo (bytes).
struct MachineMemory {
  uint64_t total = 0;
  uint64_t available = 0;   // what new work may take without swapping
  uint64_t page_cache = 0;  // Cached
  uint64_t swap_total = 0;
  uint64_t swap_free = 0;
};
MachineMemory machine_memory();

size_t page_size();

}  // namespace stoke::sys
