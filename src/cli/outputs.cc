#include "cli/outputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "fetch/store.h"

namespace stoke::cli {
namespace {

namespace fs = std::filesystem;

// Neither need exist.
bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code failed;
  if (fs::equivalent(a, b, failed) && !failed) return true;
  const fs::path one = fs::weakly_canonical(a, failed);
  return !failed && one == fs::weakly_canonical(b, failed) && !failed;
}

bool belongs_to(const fs::path& output, const std::string& input) {
  if (same_file(output, input)) return true;
  std::error_code failed;
  if (fs::is_directory(input, failed)) {
    for (fs::directory_iterator at(input, failed), end; !failed && at != end; at.increment(failed)) {
      if (same_file(output, at->path())) return true;
    }
  }
  const std::vector<std::string> parts = fetch::part_paths(input);
  return std::ranges::any_of(parts, [&](const std::string& part) { return same_file(output, part); });
}

}  // namespace

Status check_outputs(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto& [flag, path] = outputs[i];
    if (path.empty()) continue;
    std::error_code failed;
    if (fs::exists(path, failed) && !fs::is_regular_file(path, failed)) continue;  // devices take anything
    for (const auto& [name, input] : inputs) {
      if (input.empty() || !belongs_to(path, input)) continue;
      return Status(Code::kInvalid, fmt::format("{}: {} would overwrite {}; give it another name", path, flag, name));
    }
    for (size_t k = 0; k < i; ++k) {
      if (outputs[k].second.empty() || !same_file(path, outputs[k].second)) continue;
      return Status(Code::kInvalid, fmt::format("{}: {} and {} name the same file", path, flag, outputs[k].first));
    }
  }
  return ok_status();
}

}  // namespace stoke::cli
