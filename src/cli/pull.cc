// stoke pull: fetches a model by short name, hf:owner/repo/file or URL.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "cli/catalogue.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/standard_streams.h"
#include "cli/verbs.h"
#include "fetch/digest.h"
#include "fetch/download.h"
#include "fetch/store.h"
#include "sys/files.h"

namespace stoke::cli {
namespace {

namespace fs = std::filesystem;

struct PullFlags {
  std::string name;
  std::string sha256;
  int retries = 8;
  double retry_wait = 1;
  bool list = false;
  bool json = false;
  bool quiet = false;
};

// One line that is drawn over itself, at most ten times a second; nothing unless stderr is a terminal.
class ProgressBar {
 public:
  ProgressBar(std::string label, bool shown) : label_(std::move(label)), shown_(shown) {}

  void draw(uint64_t done, uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    const bool known = done > 0 || total > 0;
    if (!shown_ || (now - drawn_at_ < std::chrono::milliseconds(100) && (done != total || !known))) return;
    drawn_ = true;
    if (!known) {
      drawn_at_ = now;
      tell("\r\033[K{}  waiting for the server", label_);
      return;
    }
    if (!started_) {
      started_ = true;
      start_ = now;
      start_bytes_ = done;
    }
    drawn_at_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = seconds > 0 ? static_cast<double>(done - std::min(done, start_bytes_)) / seconds : 0;
    std::string line = fmt::format("{}  {}", label_, format_size(static_cast<int64_t>(done)));
    if (total > 0) {
      const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
      const std::string bar(static_cast<size_t>(share * kWidth), '#');
      line = fmt::format("{}  [{:<{}}] {:3.0f} %  {} of {}", label_, bar, kWidth, share * 100,
                         format_size(static_cast<int64_t>(done)), format_size(static_cast<int64_t>(total)));
    }
    tell("\r\033[K{}  {}/s", line, format_size(static_cast<int64_t>(rate)));
    std::fflush(stderr);
  }
  void clear() {
    if (drawn_) tell("\r\033[K");
  }

 private:
  static constexpr int kWidth = 30;
  std::string label_;
  bool shown_;
  bool drawn_ = false;
  bool started_ = false;
  uint64_t start_bytes_ = 0;
  std::chrono::steady_clock::time_point start_, drawn_at_;
};

Result<fetch::DownloadResult> pull_file(fetch::Http& http, const fetch::RemoteFile& file, const PullFlags& flags,
                                        const Interrupt& interrupt) {
  STOKE_TRY(sys::make_folders(fs::path(file.path).parent_path().string()));
  ProgressBar bar(fs::path(file.path).filename().string(), !flags.quiet && is_terminal(2));
  fetch::DownloadRequest request;
  request.url = file.url;
  request.path = file.path;
  request.sha256 = file.sha256;
  request.size = file.size;
  request.token = file.token;
  request.retries = flags.retries;
  request.first_pause_s = flags.retry_wait;
  request.progress = [&](uint64_t done, uint64_t total) {
    bar.draw(done, total);
    return !interrupt.raised();
  };
  request.notice = [&](const std::string& text) {
    bar.clear();
    if (!flags.quiet) tell("stoke: {}\n", text);
  };
  Result<fetch::DownloadResult> result = fetch::download(http, request);
  bar.clear();
  return result;
}

// A file that is here already: its checksum is looked at where one is known.
Result<Json> describe_present(const fetch::RemoteFile& file, const Interrupt& interrupt) {
  std::error_code error;
  Json entry = {{"path", file.path}, {"url", file.url}, {"bytes", fs::file_size(file.path, error)}};
  if (file.sha256.empty()) return entry;
  const fetch::KeepGoing keep_going = [&](uint64_t) { return !interrupt.raised(); };
  STOKE_ASSIGN(const std::string sha256, fetch::sha256_file(file.path, keep_going));
  if (sha256 != file.sha256) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: is here, but its SHA-256 is {}, should be {}; delete it and pull again", file.path,
                              sha256, file.sha256));
  }
  entry["sha256"] = sha256;
  entry["verified"] = true;
  return entry;
}

Result<Json> pull_all(const PullFlags& flags, const Interrupt& interrupt) {
  STOKE_ASSIGN(const auto entries, catalogue());
  STOKE_ASSIGN(auto files, fetch::find_model(flags.name, entries, fetch::environment_settings()));
  if (!flags.sha256.empty()) {
    if (files.size() != 1) return Status(Code::kInvalid, "--sha256 is for a model of one file; this one has parts");
    STOKE_ASSIGN(files.front().sha256, fetch::parse_sha256(flags.sha256));
  }
  STOKE_ASSIGN(fetch::Http http, fetch::Http::open());
  Json list = Json::array();
  std::error_code error;
  for (const fetch::RemoteFile& file : files) {
    if (fs::exists(file.path, error)) {
      STOKE_ASSIGN(Json entry, describe_present(file, interrupt));
      list.push_back(std::move(entry));
      continue;
    }
    STOKE_ASSIGN(const fetch::DownloadResult done, pull_file(http, file, flags, interrupt));
    list.push_back({{"path", file.path},
                    {"url", file.url},
                    {"bytes", done.bytes},
                    {"bytes_resumed", done.bytes_resumed},
                    {"sha256", done.sha256},
                    {"verified", done.verified}});
  }
  return list;
}

int list_models(const PullFlags& flags) {
  const auto entries = catalogue();
  if (!entries.ok()) return fail(entries.status());
  Json all = Json::array();
  for (const fetch::CatalogueEntry& entry : *entries) {
    all.push_back({{"name", entry.name}, {"source", entry.source}, {"licence", entry.licence}});
    if (!flags.json) fmt::print("{:<16} {:<12} {}\n", entry.name, entry.licence, entry.about);
  }
  if (flags.json) print_json(Json{{"models", all}});
  return 0;
}

int run(const PullFlags& flags) {
  if (flags.list) return list_models(flags);
  if (flags.name.empty())
    return fail_usage("pull what? give a name (stoke pull --list), hf:owner/repo/file or a URL", "pull");
  const Interrupt interrupt;
  const Result<Json> files = pull_all(flags, interrupt);
  if (!files.ok()) {
    const int status = fail(files.status());
    return interrupt.raised() ? interrupt.exit_status() : status;
  }
  const std::string path = files->front().at("path");
  if (flags.json) {
    print_json(Json{{"path", path}, {"files", *files}});
    return 0;
  }
  for (const Json& file : *files) {
    if (!flags.quiet && file.contains("verified") && !file.at("verified").get<bool>()) {
      tell("stoke: {}: no checksum is known for it, only its length was checked\n", file.at("path").get<std::string>());
    }
  }
  fmt::print("{}\n", path);
  return 0;
}

}  // namespace

void add_pull(CLI::App& app, Context& context) {
  auto& flags = context.make<PullFlags>();
  auto* verb = app.add_subcommand("pull", "fetches a model, resumable and checksummed; prints where it lies");
  verb->add_option("NAME", flags.name, "a short name (see --list), hf:owner/repo/file, or a URL");
  verb->add_flag("--list", flags.list, "the short names there are to fetch (what is here: stoke list)");
  verb->add_option("--sha256", flags.sha256, "what the file's SHA-256 must be");
  verb->add_option("--retries", flags.retries, "tries in a row without a byte before giving up")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  verb->add_option("--retry-wait", flags.retry_wait, "seconds before the first new try; doubles up to 30")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  verb->add_flag(
      "--json", flags.json,
      "one JSON object: path, and for each file path, url, bytes, sha256, verified; no sha256 of what was here "
      "already, unless the catalogue or --sha256 names it");
  verb->add_flag("-q,--quiet", flags.quiet, "no progress and no notices");
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
