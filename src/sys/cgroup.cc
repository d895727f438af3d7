#include "sys/cgroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <vector>

#include "sys/proc_text.h"

namespace stoke::sys {
namespace {

namespace fs = std::filesystem;

// Version 1 writes "no limit" as the largest page-aligned number; anything of that size is none.
constexpr uint64_t kNoLimitFrom = uint64_t{1} << 60;

// A cgroup hierarchy as mounted here, and our place in it.
struct Hierarchy {
  bool v2 = false;
  std::string mount;  // the mount point
  std::string group;  // our folder below it, "" or "/a/b"
};

bool has_word(std::string_view list, std::string_view word) {
  for (std::string_view part : split(list, ',')) {
    if (part == word) return true;
  }
  return false;
}

// Our path within the hierarchy, from /proc/self/cgroup lines of "id:controllers:path".
std::optional<std::string> group_path(const std::string& root, bool v2, std::string_view controller) {
  const std::string text = read_text(root + "/proc/self/cgroup").value_or("");
  for (std::string_view line : split(text, '\n')) {
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? line.starts_with("0::") : has_word(controllers, controller)) return std::string(line.substr(second + 1));
  }
  return std::nullopt;
}

// Inside a container without a cgroup namespace the path counts from the host's root while the mount shows only the
// container's part of it (`shown`): what lies above is cut off.
std::string below_mount(std::string path, const std::string& shown) {
  if (shown != "/" && path.starts_with(shown)) path.erase(0, shown.size());
  while (path.ends_with('/')) path.pop_back();
  return path;
}

// Mounted cgroup file systems that can carry `controller`, from lines of
// "id parent major:minor shown mount-point options ... - type source super-options".
std::vector<Hierarchy> find_hierarchies(const std::string& root, std::string_view controller) {
  std::vector<Hierarchy> found;
  const std::string text = read_text(root + "/proc/self/mountinfo").value_or("");
  for (std::string_view line : split(text, '\n')) {
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const std::vector<std::string_view> left = split(line.substr(0, dash), ' ');
    const std::vector<std::string_view> right = split(line.substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3) continue;
    const bool v2 = right[0] == "cgroup2";
    if (!v2 && (right[0] != "cgroup" || !has_word(right[2], controller))) continue;
    const std::optional<std::string> path = group_path(root, v2, controller);
    if (!path) continue;
    Hierarchy h{v2, root + std::string(left[4]), below_mount(*path, std::string(left[3]))};
    std::error_code error;
    if (!fs::is_directory(h.mount + h.group, error)) h.group.clear();
    found.push_back(std::move(h));
  }
  return found;
}

// Calls level(folder) for our group and each one above it, up to the mount point.
template <typename Level>
void each_level(const Hierarchy& h, Level level) {
  std::string group = h.group;
  for (;;) {
    level(h.mount + group);
    if (group.empty()) return;
    group.erase(group.rfind('/'));
  }
}

struct LevelMemory {
  uint64_t limit = 0;
  uint64_t free = 0;
};

// A group's limit and what is left of it: page cache that the kernel can drop does not count as used.
std::optional<LevelMemory> level_memory(bool v2, const std::string& folder) {
  const std::optional<uint64_t> limit = read_number(folder + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  if (!limit || *limit >= kNoLimitFrom) return std::nullopt;
  const uint64_t used = read_number(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  const std::string stat = read_text(folder + "/memory.stat").value_or("");
  const char* const active = v2 ? "active_file" : "total_active_file";
  const char* const inactive = v2 ? "inactive_file" : "total_inactive_file";
  const uint64_t cache = find_number(stat, active).value_or(0) + find_number(stat, inactive).value_or(0);
  const uint64_t held = used - std::min(used, cache);
  return LevelMemory{*limit, *limit - std::min(*limit, held)};
}

// The processors that quota / period microseconds are; nullopt where either is not a number ("max", -1).
std::optional<double> ratio(std::optional<uint64_t> quota, std::optional<uint64_t> period) {
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<double> level_cpus(bool v2, const std::string& folder) {
  if (!v2) return ratio(read_number(folder + "/cpu.cfs_quota_us"), read_number(folder + "/cpu.cfs_period_us"));
  const std::string text = read_text(folder + "/cpu.max").value_or("");  // "150000 100000" or "max 100000"
  const std::vector<std::string_view> parts = split(text, ' ');
  if (parts.size() != 2) return std::nullopt;
  return ratio(parse_number(parts[0]), parse_number(parts[1]));
}

}  // namespace

MemoryLimit memory_limit(const std::string& root) {
  const std::string meminfo = read_text(root + "/proc/meminfo").value_or("");
  const uint64_t total = find_number(meminfo, "MemTotal").value_or(0);
  MemoryLimit limit{.bytes = total, .available = find_number(meminfo, "MemAvailable").value_or(total), .how = ""};
  std::string available_how = "MemAvailable of /proc/meminfo";
  std::string limit_how = "no cgroup limit below the machine's memory";
  for (const Hierarchy& h : find_hierarchies(root, "memory")) {
    each_level(h, [&](const std::string& folder) {
      const std::optional<LevelMemory> level = level_memory(h.v2, folder);
      if (!level) return;
      const std::string where = folder.substr(root.size());
      if (level->limit < limit.bytes) {
        limit.bytes = level->limit;
        limit.from_cgroup = true;
        limit_how = fmt::format("cgroup v{} limit {} bytes at {}", h.v2 ? 2 : 1, level->limit, where);
      }
      if (level->free < limit.available) {
        limit.available = level->free;
        available_how = fmt::format("what is left of the limit at {}", where);
      }
    });
  }
  limit.how = fmt::format("{}; available: {}", limit_how, available_how);
  return limit;
}

std::optional<CpuQuota> cpu_quota(const std::string& root) {
  std::optional<CpuQuota> tightest;
  for (const Hierarchy& h : find_hierarchies(root, "cpu")) {
    each_level(h, [&](const std::string& folder) {
      const std::optional<double> cpus = level_cpus(h.v2, folder);
      if (!cpus || (tightest && tightest->cpus <= *cpus)) return;
      tightest = CpuQuota{*cpus, fmt::format("cgroup v{} quota at {}", h.v2 ? 2 : 1, folder.substr(root.size()))};
    });
  }
  return tightest;
}

}  // namespace stoke::sys
