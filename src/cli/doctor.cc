// stoke doctor: what this machine offers and what is in the way.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "cli/output.h"
#include "cli/verbs.h"
#include "engine/memory_need.h"
#include "sys/cgroup.h"
#include "sys/cpu.h"
#include "sys/files.h"
#include "sys/memory.h"
#include "sys/proc_text.h"
#include "sys/profile.h"
#include "sys/uring.h"

namespace stoke::cli {
namespace {

struct DoctorFlags {
  std::string folder = ".";
  bool json = false;
};

// One thing looked at: what was found, and where it is in the way, what to do.
struct Finding {
  std::string key;    // of the JSON object
  std::string title;  // for people
  Json value;
  std::string text;
  std::string advice;  // empty: all is well
};
using Findings = std::vector<Finding>;

std::string size_text(uint64_t bytes) { return format_size(static_cast<int64_t>(bytes)); }

void look_at_processor(Findings& out) {
  out.push_back({"cpu", "processor", sys::cpu_model(), sys::cpu_model(), ""});
  const std::vector<std::string> features = sys::cpu_features();
  out.push_back({"features", "vector instructions", features, fmt::format("{}", fmt::join(features, " ")),
                 features.empty() ? "no vector instructions that stoke knows: the portable kernels are slow" : ""});
  const sys::AmxPermission amx = sys::request_amx();
  if (amx != sys::AmxPermission::kNoAmx) {
    const bool granted = amx == sys::AmxPermission::kGranted;
    out.push_back({"amx", "AMX", granted, granted ? "granted by the kernel" : "refused by the kernel",
                   granted ? "" : "the processor has AMX but this process may not use it (a seccomp filter?)"});
  }
  const sys::Topology topology = sys::topology();
  const int threads = sys::default_threads(topology);
  out.push_back({"threads", "threads", threads,
                 fmt::format("{} by default; {} physical cores, {} logical processors allowed", threads,
                             topology.physical_cores, topology.allowed.size()),
                 ""});
  if (topology.quota_cpus > 0) {
    out.push_back(
        {"cpu_quota", "processor quota", topology.quota_cpus, fmt::format("{:.2f} processors", topology.quota_cpus),
         topology.quota_cpus < topology.physical_cores ? topology.quota_how + " allows less than the cores" : ""});
  }
  const std::string governor = sys::cpu_governor();
  if (!governor.empty()) {
    out.push_back(
        {"governor", "clock governor", governor, governor,
         governor == "powersave" ? "may keep the clock low; try: cpupower frequency-set -g performance" : ""});
  }
}

void look_at_memory(Findings& out) {
  const sys::MemoryLimit limit = sys::memory_limit();
  const sys::MachineMemory machine = sys::machine_memory();
  out.push_back({"memory_total_bytes", "memory", machine.total, size_text(machine.total), ""});
  out.push_back({"memory_limit_bytes", "memory limit", limit.bytes,
                 fmt::format("{} ({})", size_text(limit.bytes), limit.how),
                 limit.from_cgroup ? "a cgroup gives this process less than the machine has" : ""});
  out.push_back({"memory_available_bytes", "memory available", limit.available, size_text(limit.available), ""});
  const engine::Budget budget = engine::find_budget(0, static_cast<int64_t>(sys::process_memory().anonymous));
  out.push_back({"budget_bytes", "memory for a model", budget.bytes,
                 fmt::format("{} without --memory: {}", format_size(budget.bytes), budget.source), ""});
  out.push_back(
      {"swap_bytes", "swap", machine.swap_total, size_text(machine.swap_total),
       machine.swap_total > 0 ? "weights that are swapped out are read back page by page: keep to what is free" : ""});
  const std::string huge = sys::read_text("/sys/kernel/mm/transparent_hugepage/enabled").value_or("");
  const bool never = huge.find("[never]") != std::string::npos || huge.empty();
  out.push_back(
      {"huge_pages", "huge pages", huge, huge.empty() ? "not offered" : huge,
       never ? "decoding is a little slower; try: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" : ""});
  rlimit locked = {};
  getrlimit(RLIMIT_MEMLOCK, &locked);
  const bool unlimited = locked.rlim_cur == RLIM_INFINITY;
  out.push_back(
      {"memlock_bytes", "lockable memory", unlimited ? Json() : Json(locked.rlim_cur),
       unlimited ? "unlimited" : size_text(locked.rlim_cur),
       !unlimited && locked.rlim_cur < (8U << 20) ? "under 8 MiB: registered read buffers will be refused" : ""});
}

// A direct read of a small file made for the purpose, in the folder that models are in.
void look_at_direct_reads(const std::string& folder, Findings& out) {
  const std::string path = fmt::format("{}/.stoke-doctor-{}.tmp", folder, getpid());
  const Status written = sys::write_file_atomic(path, std::string(64 << 10, 's'));
  if (!written.ok()) {
    out.push_back({"direct_reads", "direct reads", Json(), "not tried: " + written.message(),
                   "choose a folder you can write (--dir)"});
    return;
  }
  const Result<sys::File> file = sys::File::open_direct(path);
  unlink(path.c_str());
  const bool direct = file.ok() && file->direct();
  const std::string why = file.ok() ? file->why_not_direct() : file.status().message();
  out.push_back(
      {"direct_reads", "direct reads", direct,
       direct ? fmt::format("work in {} (alignment {})", folder, file->alignment()) : why,
       direct ? "" : "weights are read through the page cache, which then holds them a second time for a while"});
}

void look_at_disk(const std::string& folder, Findings& out) {
  const Result<uint64_t> free = sys::free_space(folder);
  out.push_back({"disk_free_bytes", "disk space", free.ok() ? Json(*free) : Json(),
                 free.ok() ? fmt::format("{} in {}", size_text(*free), folder) : free.status().message(),
                 free.ok() && *free < (uint64_t{1} << 30) ? "less than 1 GiB" : ""});
  look_at_direct_reads(folder, out);
  const Result<sys::Uring> ring = sys::Uring::open(1);
  out.push_back({"io_uring", "io_uring", ring.ok(), ring.ok() ? "allowed" : ring.status().message(),
                 ring.ok() ? "" : "reads use threads instead; containers often forbid io_uring (seccomp)"});
  const Result<sys::MachineProfile> profile = sys::load_profile(sys::profile_key(folder));
  out.push_back({"profile", "profile", profile.ok(),
                 profile.ok() ? sys::profile_path(profile->key) : "none for this machine and disk",
                 profile.ok() ? "" : fmt::format("measure with: stoke profile --dir {}", folder)});
}

int run(const DoctorFlags& flags) {
  Findings findings;
  look_at_processor(findings);
  look_at_memory(findings);
  look_at_disk(flags.folder, findings);
  if (flags.json) {
    Json json;
    Json advice = Json::array();
    for (const Finding& finding : findings) {
      json[finding.key] = finding.value;
      if (!finding.advice.empty()) advice.push_back(finding.key + ": " + finding.advice);
    }
    json["memory_limit_how"] = sys::memory_limit().how;
    json["advice"] = advice;
    print_json(json);
    return 0;
  }
  for (const Finding& finding : findings) {
    fmt::print("{} {:<24}{}\n", finding.advice.empty() ? " " : "!", finding.title, finding.text);
    if (!finding.advice.empty()) fmt::print("  {:<24}-> {}\n", "", finding.advice);
  }
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  auto& flags = context.make<DoctorFlags>();
  auto* verb = app.add_subcommand("doctor", "what this machine offers and what is in the way");
  verb->add_option("--dir", flags.folder, "the folder that models are in")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  verb->add_flag("--json", flags.json, "one JSON object");
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
