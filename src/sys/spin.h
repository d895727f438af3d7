// Waiting for another thread: the processor's pause hint, and futex sleep and wake on a 32-bit atomic.
//
// Thread role: any. Ownership: the atomic is the caller's and must outlive every sleeper on it.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace stoke::sys {

// Tells the processor that this is a spin loop (saves power and the sibling's issue slots).
inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` costs nothing on most cores; `isb` waits about 10 ns
#endif
}

// Lets another thread of this core run, where there is one.
inline void yield_core() { sched_yield(); }

// Sleeps for about that long (the kernel adds some 50 us).
inline void nap_us(int64_t us) {
  const timespec time{.tv_sec = 0, .tv_nsec = us * 1000};
  nanosleep(&time, nullptr);
}

// Sleeps until woken, unless *word is no longer `expected`. May return for no reason: the caller checks again.
inline void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

// Wakes every thread that sleeps on *word.
inline void futex_wake_all(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace stoke::sys
