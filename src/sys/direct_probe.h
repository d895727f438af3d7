// Whether direct reads of a file do what they say, and with what alignment. Used by file.h alone.
#pragma once

#include <cstdint>
#include <string>

namespace stoke::sys {

struct DirectProbe {
  uint32_t alignment = 0;  // offsets, lengths and addresses; 0: direct reads do not work here
  std::string reason;      // why not
};

// One file opened twice, with and without O_DIRECT. Reads its first block both ways and compares (some user-space file
// systems accept the flag and return other bytes); asks the kernel for the alignment, or tries 512 and 4096.
DirectProbe probe_direct(int direct_fd, int buffered_fd);

}  // namespace stoke::sys
