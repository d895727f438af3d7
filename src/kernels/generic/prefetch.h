// Asking for cache lines ahead of their use.
//
// Not __builtin_prefetch: a function whose only effect is that one is "pure" to g++ 12, which then drops calls of it
// that were not inlined early (found in a kernel that ran at 19 GB/s instead of 32, on whether a loop's bounds were
// known). An asm statement stays.
#pragma once

#include <cstddef>

namespace stoke::kernels::STOKE_ISA {

#if defined(__x86_64__)
#define STOKE_PREFETCH_NEAR(p) asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)))
#define STOKE_PREFETCH_FAR(p) asm volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(p)))
#elif defined(__aarch64__)
#define STOKE_PREFETCH_NEAR(p) asm volatile("prfm pldl1keep, [%0]" : : "r"(p))
#define STOKE_PREFETCH_FAR(p) asm volatile("prfm pldl2keep, [%0]" : : "r"(p))
#else
#define STOKE_PREFETCH_NEAR(p) __builtin_prefetch(p, 0, 3)
#define STOKE_PREFETCH_FAR(p) __builtin_prefetch(p, 0, 2)
#endif

// The line at p, which need not be an address of ours, to the first-level cache.
static inline void prefetch_near(const void* p) { STOKE_PREFETCH_NEAR(p); }
// To the second-level cache.
static inline void prefetch_far(const void* p) { STOKE_PREFETCH_FAR(p); }

// Lines of [p, p + kBytes).
template <size_t kBytes, bool kFar = false>
static inline void prefetch_all(const void* p) {
#pragma GCC unroll 8
  for (size_t at = 0; at < kBytes; at += 64) {
    const char* line = static_cast<const char*>(p) + at;
    kFar ? prefetch_far(line) : prefetch_near(line);
  }
}

}  // namespace stoke::kernels::STOKE_ISA
