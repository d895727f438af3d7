#include "cli/verify.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>

#include "cli/standard_streams.h"
#include "cli/verbs.h"
#include "fetch/digest.h"
#include "formats/store_verify.h"
#include "sys/files.h"

namespace stoke::cli {
namespace {

using KeepGoing = std::function<bool(uint64_t, uint64_t)>;

// Digests by file name.
Result<std::map<std::string, std::string>> read_hashes(const std::string& path) {
  STOKE_ASSIGN(const std::string text, sys::read_file(path));
  std::map<std::string, std::string> digests;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string digest;
    std::string name;
    if (!(words >> digest >> name)) continue;
    if (name.starts_with('*')) name.erase(0, 1);  // as sha256sum marks files read in binary
    auto parsed = fetch::parse_sha256(digest);
    if (!parsed.ok()) return parsed.status().with(path);
    digests[std::filesystem::path(name).filename().string()] = *parsed;
  }
  return digests;
}

Result<std::string> verify_files(const formats::ModelFile& model, std::string hashes, const KeepGoing& keep_going) {
  if (hashes.empty()) {
    hashes = (std::filesystem::path(model.files[0]).parent_path() / "SHA256SUMS").string();
    if (std::error_code error; !std::filesystem::exists(hashes, error)) {
      return Status(Code::kNotFound,
                    fmt::format("{}: no such file, so there is nothing to verify against: name a list, as sha256sum "
                                "writes it, with --hashes FILE",
                                hashes));
    }
  }
  STOKE_ASSIGN(const auto digests, read_hashes(hashes));
  uint64_t total = 0;
  uint64_t before = 0;
  for (const uint64_t size : model.file_sizes) total += size;
  for (size_t i = 0; i < model.files.size(); ++i) {
    const std::string& path = model.files[i];
    const auto wanted = digests.find(std::filesystem::path(path).filename().string());
    if (wanted == digests.end()) {
      return Status(Code::kNotFound, fmt::format("{}: not in {}: name a list that has it with --hashes", path, hashes));
    }
    STOKE_ASSIGN(const std::string found,
                 fetch::sha256_file(path, [&](uint64_t done) { return keep_going(before + done, total); }));
    if (found != wanted->second) {
      return Status(Code::kCorrupt, fmt::format("{}: SHA-256 is {}, {} says {}: the file is damaged, or another: fetch "
                                                "it again",
                                                path, found, hashes, wanted->second));
    }
    before += model.file_sizes[i];
  }
  return fmt::format("{} of {} files agree with {}", model.files.size(), model.files.size(), hashes);
}

}  // namespace

Result<std::string> verify_model(const std::string& path, const std::string& hashes, bool progress,
                                 const Interrupt& interrupt) {
  STOKE_ASSIGN(const formats::ModelFile model, formats::open_model_file(path));
  uint64_t shown = 101;
  const KeepGoing keep_going = [&](uint64_t done, uint64_t total) {
    const uint64_t percent = total == 0 ? 100 : done * 100 / total;
    if (progress && percent != shown) tell("\rverifying: {} %\x1b[K", percent);
    shown = percent;
    return !interrupt.raised();
  };
  Result<std::string> found = [&]() -> Result<std::string> {
    if (!formats::is_neuron_store(model)) return verify_files(model, hashes, keep_going);
    STOKE_ASSIGN(const formats::NeuronStore store, formats::read_neuron_store(model));
    STOKE_TRY(formats::verify_store(model, store, keep_going));
    return fmt::format("all {} records and {} blocks of rows agree with their checksums", store.records,
                       store.matrix_units);
  }();
  if (progress) tell("\r\x1b[K");
  return found;
}

}  // namespace stoke::cli
