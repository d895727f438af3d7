#include "sys/checksum.h"

// Inline, so that a build without the library (a cross build) has it, too.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace stoke::sys {

#ifdef STOKE_CHECKSUM_AVX2
uint64_t checksum64_avx2(const void* data, size_t bytes);  // checksum_avx2.cc

uint64_t checksum64(const void* data, size_t bytes) {
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  return avx2 ? checksum64_avx2(data, bytes) : XXH3_64bits(data, bytes);
}
#else
uint64_t checksum64(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }
#endif

uint32_t checksum32(const void* data, size_t bytes) { return static_cast<uint32_t>(checksum64(data, bytes)); }

}  // namespace stoke::sys
