// What the control groups around this process allow it: memory and processor time, versions 1 and 2, every level up to
// the top of what can be seen.
//
// Thread role: any. Ownership: values. Never fails: what cannot be read does not limit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace stoke::sys {

// The tightest limit on memory and where it was found.
struct MemoryLimit {
  uint64_t bytes = 0;        // what the process may hold in all: the tightest cgroup's limit, or the machine's memory
  uint64_t available = 0;    // what it may still take: of limits less what cannot be reclaimed, and of MemAvailable
  bool from_cgroup = false;  // `bytes` is a cgroup's
  std::string how;           // one line: which files said so
};
// `root` is put before every path (tests give a folder that imitates /proc and /sys).
MemoryLimit memory_limit(const std::string& root = "");

// Processors' worth of time (1.5: one and a half); nullopt without a quota.
struct CpuQuota {
  double cpus = 0;
  std::string how;
};
std::optional<CpuQuota> cpu_quota(const std::string& root = "");

}  // namespace stoke::sys
