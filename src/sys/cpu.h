// The processors this process may use and what they can do, for choosing a number of threads and for `stoke doctor`.
// (The kernels detect for themselves what they need.)
//
// Thread role: any. Ownership: values. Never fails: what cannot be found out is left empty.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoke::sys {

// Instruction sets that matter here, as this processor and kernel offer them: "avx2", "avx512_vnni", "amx_int8",
// "i8mm".
std::vector<std::string> cpu_features();

// AMX tiles need the kernel's permission, asked for once per process.
enum class AmxPermission { kNoAmx, kGranted, kRefused };
AmxPermission request_amx();

// "Intel(R) Xeon(R) Processor", or an ARM implementer and part number.
std::string cpu_model();
// The highest clock the kernel reports for any allowed processor, in Hz; 0 where it does not say.
uint64_t cpu_max_hz();
// The scaling governor of the first allowed processor; empty where there is none (as in virtual machines).
std::string cpu_governor();

struct Topology {
  std::vector<int> allowed;  // logical processors in our affinity mask
  int physical_cores = 0;    // cores behind them
  bool smt = false;          // some core shows more than one of them
  double quota_cpus = 0;     // cgroup quota in processors' worth of time; 0: none
  std::string quota_how;
};
Topology topology();

// One thread a physical core that we may use, no more than the quota rounded up; at least 1.
int default_threads(const Topology& topology);

}  // namespace stoke::sys
