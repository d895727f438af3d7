#include "sys/checksum.h"

// Inline, so that a build without the library (a cross build) has it, too.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace stoke::sys {

uint32_t checksum32(const void* data, size_t bytes) { return static_cast<uint32_t>(XXH3_64bits(data, bytes)); }
uint64_t checksum64(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

}  // namespace stoke::sys
