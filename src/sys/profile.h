// What this machine can do, measured: the yardstick that later measurements and plans refer to.
//
// Thread role: measuring functions by the control thread; they use the machine fully for some seconds. Ownership:
// values.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace stoke::sys {

// Names the machine that was measured. Another machine, or another kernel, is measured anew.
struct ProfileKey {
  std::string cpu;
  int cores = 0;  // physical cores that we may use
  std::string kernel;
  uint64_t device = 0;  // of the file system that the disk rates are for
  bool operator==(const ProfileKey&) const = default;
};

struct PeakRate {
  std::string name;  // instruction set
  bool int8 = false;
  double one_thread_ops_per_s = 0;
  double all_threads_ops_per_s = 0;
};

struct DiskRate {
  uint64_t request_bytes = 0;
  int depth = 0;
  double bytes_per_s = 0;
  double latency_us = 0;  // mean of a request
};

struct DiskProfile {
  std::string folder;
  uint64_t file_bytes = 0;
  bool direct = false;  // reads went past the page cache
  std::string why_not_direct;
  std::string reader;  // "io_uring" or "threads"
  std::vector<DiskRate> random;
  double sequential_direct_bytes_per_s = 0;
  double sequential_buffered_bytes_per_s = 0;  // cold, through the page cache
};

struct BarrierCost {
  int threads = 0;
  double us = 0;  // of one ThreadPool::run, median
};

struct MachineProfile {
  ProfileKey key;
  int threads = 0;  // what "all" means below
  double dram_read_one_thread_bytes_per_s = 0;
  double dram_read_all_threads_bytes_per_s = 0;
  std::vector<PeakRate> peaks;
  std::vector<BarrierCost> barrier;
  std::optional<DiskProfile> disk;
};

struct ProfileOptions {
  std::string folder;                                // where the disk is measured; empty: it is not
  uint64_t file_bytes = uint64_t{1} << 30;           // of the temporary file there
  int threads = 0;                                   // 0: default_threads()
  size_t dram_bytes = 0;                             // of the buffer that is read; 0: large against every cache
  double seconds_per_step = 0.25;                    // each rate is the best (processor) or the mean (disk) over this
  std::function<void(const std::string&)> progress;  // told what is measured next; may be empty
};

ProfileKey profile_key(const std::string& folder);
// kNoSpace when the folder cannot take the temporary file; other disk failures are kIo.
Result<MachineProfile> measure_machine(const ProfileOptions& options);
// The disk part alone; sys/profile_disk.cc.
Result<DiskProfile> measure_disk(const ProfileOptions& options);
// Median cost of one empty run of a pool of that many threads, in microseconds.
double measure_barrier_us(int threads, double seconds);

// JSON text. from_json is kCorrupt for anything that profile_to_json did not write in this version.
std::string profile_to_json(const MachineProfile& profile);
Result<MachineProfile> profile_from_json(const std::string& text);

// Where the profile of this machine is kept: below $XDG_CACHE_HOME or ~/.cache.
std::string profile_path(const ProfileKey& key);
// The kept profile; kNotFound when there is none for this key.
Result<MachineProfile> load_profile(const ProfileKey& key);
Status save_profile(const MachineProfile& profile);

}  // namespace stoke::sys
