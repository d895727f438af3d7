// stoke profile: measures this machine and keeps the result; stoke profile MODEL: records what fires in a model.
#include "sys/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/output.h"
#include "cli/profile_model.h"
#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {
namespace {

constexpr double kGiga = 1e9;

struct ProfileFlags {
  std::string folder = ".";
  int64_t size = int64_t{1} << 30;
  int threads = 0;
  bool no_disk = false;
  bool refresh = false;
  bool json = false;
  bool quiet = false;
  ProfileModelFlags model;
};

void print_disk(const sys::DiskProfile& disk) {
  fmt::print("disk            {} ({}, {})\n", disk.folder, disk.reader,
             disk.direct ? "direct" : "through the page cache");
  if (!disk.direct) fmt::print("                {}\n", disk.why_not_direct);
  fmt::print("  sequential    {:.2f} GB/s direct, {:.2f} GB/s through the page cache\n",
             disk.sequential_direct_bytes_per_s / kGiga, disk.sequential_buffered_bytes_per_s / kGiga);
  uint64_t shown = 0;
  for (const sys::DiskRate& rate : disk.random) {
    if (rate.request_bytes != shown) {
      fmt::print("{}  random {:>5} KiB", shown == 0 ? "" : "\n", rate.request_bytes / 1024);
      shown = rate.request_bytes;
    }
    fmt::print("   depth {:>2}: {:5.2f} GB/s", rate.depth, rate.bytes_per_s / kGiga);
  }
  fmt::print("\n");
}

void print_profile(const sys::MachineProfile& profile) {
  fmt::print("processor       {}, {} cores, {} threads used\n", profile.key.cpu, profile.key.cores, profile.threads);
  fmt::print("memory reads    {:.1f} GB/s, one thread {:.1f} GB/s\n", profile.dram_read_all_threads_bytes_per_s / kGiga,
             profile.dram_read_one_thread_bytes_per_s / kGiga);
  for (const sys::PeakRate& peak : profile.peaks) {
    fmt::print("{:<15} {:.0f} {}, one thread {:.0f}\n", peak.name, peak.all_threads_ops_per_s / kGiga,
               peak.int8 ? "int8 GOPS" : "FP32 GFLOPS", peak.one_thread_ops_per_s / kGiga);
  }
  for (const sys::BarrierCost& cost : profile.barrier) {
    if (cost.threads > 1) fmt::print("barrier         {:.2f} us with {} threads\n", cost.us, cost.threads);
  }
  if (profile.disk) print_disk(*profile.disk);
}

Result<sys::MachineProfile> kept_or_measured(const ProfileFlags& flags) {
  sys::ProfileOptions options;
  if (!flags.no_disk) options.folder = flags.folder;
  options.file_bytes = static_cast<uint64_t>(flags.size);
  options.threads = flags.threads;
  if (!flags.refresh) {
    Result<sys::MachineProfile> kept = sys::load_profile(sys::profile_key(options.folder));
    const bool fits = kept.ok() && (flags.threads == 0 || kept->threads == flags.threads);
    if (fits) return kept;
  }
  if (!flags.quiet && is_terminal(2)) {
    options.progress = [](const std::string& what) { tell("\r\033[Kmeasuring {}", what); };
  }
  Result<sys::MachineProfile> measured = sys::measure_machine(options);
  if (options.progress) tell("\r\033[K");
  if (!measured.ok()) return measured;
  STOKE_TRY(sys::save_profile(*measured));
  return measured;
}

int run_model(const CLI::App& verb, ProfileFlags& flags) {
  for (const char* flag : {"--dir", "--size", "--no-disk", "--refresh"}) {
    if (verb.count(flag) > 0)
      return fail_usage(fmt::format("{} is for measuring the machine: without a MODEL", flag), "profile");
  }
  const bool no_file = flags.model.file.empty();
  if (no_file || flags.model.output.empty()) {
    return fail_usage(no_file ? "-f TEXT is missing: the text that the MODEL is run over"
                              : "-o STATS is missing: the file that the MODEL's counts go to",
                      "profile");
  }
  flags.model.model.threads = flags.threads;
  flags.model.json = flags.json;
  flags.model.quiet = flags.quiet;
  return profile_model(flags.model);
}

int run(const CLI::App& verb, ProfileFlags& flags) {
  if (!flags.model.model.model.empty()) return run_model(verb, flags);
  for (const char* flag : {"--file", "--output", "--tokens", "--ctx", "--batch", "--memory", "--ffn-act"}) {
    if (verb.count(flag) > 0) return fail_usage(fmt::format("{} wants a MODEL to record", flag), "profile");
  }
  const Result<sys::MachineProfile> profile = kept_or_measured(flags);
  if (!profile.ok()) return fail(profile.status());
  if (flags.json) {
    fmt::print("{}", sys::profile_to_json(*profile));
  } else {
    print_profile(*profile);
  }
  return 0;
}

}  // namespace

void add_profile(CLI::App& app, Context& context) {
  auto& flags = context.make<ProfileFlags>();
  auto* verb =
      app.add_subcommand("profile", "measures this machine and keeps the result; MODEL: records what fires in it");
  verb->add_option("--dir", flags.folder, "measure the disk that holds this folder, with a temporary file in it")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  verb->add_option("--size", flags.size, "of that file (default 1G)")->transform(as_size());
  verb->add_option("-t,--threads", flags.threads, "threads that \"all\" stands for")->check(CLI::Range(1, 1024));
  verb->add_flag("--no-disk", flags.no_disk, "leave the disk out");
  verb->add_flag("--refresh", flags.refresh, "measure again, though there is a result");
  verb->add_flag("--json", flags.json, "one JSON object");
  verb->add_flag("-q,--quiet", flags.quiet, "no progress");
  ProfileModelFlags& model = flags.model;
  const auto record = [&](const char* name, auto& value, const char* text) {
    return verb->add_option(name, value, text)->group("Recording a model");
  };
  record("-m,--model,MODEL", model.model.model,
         "of the ReLU family: count which neurons fire, for stoke convert --stats");
  record("-f,--file", model.file, "text that it is run over")->type_name("TEXT");
  record("-o,--output", model.output, "where the counts go, as JSON")->type_name("STATS");
  record("--tokens", model.tokens, "stop after this many of the text")->check(at_least(1));
  record("-c,--ctx,--ctx-size", model.model.context, "the text is cut into windows of so many tokens (512)")
      ->check(at_least(1));
  record("-b,--batch,--batch-size", model.model.batch, "tokens a pass")->check(at_least(1));
  record("--memory", model.model.memory, "bound on all that the process holds")->transform(as_size());
  record("--ffn-act", model.model.ffn_act, "activation, where the file does not say: relu, drelu or fatrelu:0.01");
  verb->callback([verb, &flags, &context] { context.run([verb, &flags] { return run(*verb, flags); }); });
}

}  // namespace stoke::cli
