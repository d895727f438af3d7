#include "sys/cpu.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "sys/cgroup.h"
#include "sys/proc_text.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace stoke::sys {
namespace {

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::string cpu_folder(int cpu) { return fmt::format("/sys/devices/system/cpu/cpu{}", cpu); }

// The text after "key : " on its first line of /proc/cpuinfo.
std::string cpuinfo_value(std::string_view key) {
  const std::string text = read_text("/proc/cpuinfo").value_or("");
  for (std::string_view line : split(text, '\n')) {
    const size_t colon = line.find(": ");
    if (colon != std::string_view::npos && line.starts_with(key)) return std::string(line.substr(colon + 2));
  }
  return "";
}

#if defined(__x86_64__)

// One register of a cpuid leaf.
enum Register { kEax, kEbx, kEcx, kEdx };
struct Feature {
  const char* name;
  unsigned leaf, subleaf;
  Register where;
  int bit;
  uint64_t xcr0;  // state that the kernel must save for it
};

constexpr uint64_t kYmm = 0x6;
constexpr uint64_t kZmm = 0xe6;
constexpr uint64_t kTiles = 0x60000;
constexpr Feature kFeatures[] = {
    {"sse4_2", 1, 0, kEcx, 20, 0},         {"avx", 1, 0, kEcx, 28, kYmm},         {"f16c", 1, 0, kEcx, 29, kYmm},
    {"fma", 1, 0, kEcx, 12, kYmm},         {"avx2", 7, 0, kEbx, 5, kYmm},         {"avx_vnni", 7, 1, kEax, 4, kYmm},
    {"avx512f", 7, 0, kEbx, 16, kZmm},     {"avx512bw", 7, 0, kEbx, 30, kZmm},    {"avx512vl", 7, 0, kEbx, 31, kZmm},
    {"avx512vbmi", 7, 0, kEcx, 1, kZmm},   {"avx512_vnni", 7, 0, kEcx, 11, kZmm}, {"avx512_bf16", 7, 1, kEax, 5, kZmm},
    {"avx512_fp16", 7, 0, kEdx, 23, kZmm}, {"amx_tile", 7, 0, kEdx, 24, kTiles},  {"amx_int8", 7, 0, kEdx, 25, kTiles},
    {"amx_bf16", 7, 0, kEdx, 22, kTiles},
};

uint64_t saved_state() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1U << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return 0;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

#elif defined(__aarch64__)

struct Feature {
  const char* name;
  unsigned long at;  // AT_HWCAP or AT_HWCAP2
  int bit;
};
constexpr Feature kFeatures[] = {
    {"asimd", AT_HWCAP, 1}, {"fp16", AT_HWCAP, 10},  {"dotprod", AT_HWCAP, 20}, {"sve", AT_HWCAP, 22},
    {"sve2", AT_HWCAP2, 1}, {"i8mm", AT_HWCAP2, 13}, {"bf16", AT_HWCAP2, 14},   {"sme", AT_HWCAP2, 23},
};

#endif

}  // namespace

std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  const uint64_t saved = saved_state();
  for (const Feature& feature : kFeatures) {
    unsigned r[4] = {};
    if (__get_cpuid_count(feature.leaf, feature.subleaf, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]) == 0) continue;
    const bool offered = ((r[feature.where] >> feature.bit) & 1) != 0;
    if (offered && (saved & feature.xcr0) == feature.xcr0) names.emplace_back(feature.name);
  }
#elif defined(__aarch64__)
  for (const Feature& feature : kFeatures) {
    if (((getauxval(feature.at) >> feature.bit) & 1) != 0) names.emplace_back(feature.name);
  }
#endif
  return names;
}

AmxPermission request_amx() {
#if defined(__x86_64__)
  const std::vector<std::string> features = cpu_features();
  if (std::find(features.begin(), features.end(), "amx_tile") == features.end()) return AmxPermission::kNoAmx;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? AmxPermission::kGranted
                                                                     : AmxPermission::kRefused;
#else
  return AmxPermission::kNoAmx;
#endif
}

std::string cpu_model() {
  std::string name = cpuinfo_value("model name");
  if (!name.empty()) return name;
  const std::string implementer = cpuinfo_value("CPU implementer");
  return implementer.empty() ? "unknown" : fmt::format("ARM {} part {}", implementer, cpuinfo_value("CPU part"));
}

uint64_t cpu_max_hz() {
  uint64_t most = 0;
  for (int cpu : allowed_cpus()) {
    most = std::max(most, read_number(cpu_folder(cpu) + "/cpufreq/cpuinfo_max_freq").value_or(0) * 1000);
  }
  return most;
}

std::string cpu_governor() {
  return read_text(cpu_folder(allowed_cpus().front()) + "/cpufreq/scaling_governor").value_or("");
}

Topology topology() {
  Topology result;
  result.allowed = allowed_cpus();
  std::set<std::string> cores;
  for (int cpu : result.allowed) {
    const std::string siblings = read_text(cpu_folder(cpu) + "/topology/thread_siblings_list").value_or("");
    cores.insert(siblings.empty() ? fmt::format("cpu{}", cpu) : siblings);
  }
  result.physical_cores = static_cast<int>(cores.size());
  result.smt = cores.size() < result.allowed.size();
  if (const std::optional<CpuQuota> quota = cpu_quota()) {
    result.quota_cpus = quota->cpus;
    result.quota_how = quota->how;
  }
  return result;
}

int default_threads(const Topology& topology) {
  int threads = topology.physical_cores;
  if (topology.quota_cpus > 0) threads = std::min(threads, static_cast<int>(std::ceil(topology.quota_cpus)));
  return std::max(1, threads);
}

}  // namespace stoke::sys
