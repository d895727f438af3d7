#include "cli/outputs.h"

#include <fmt/format.h>

#include <filesystem>
#include <regex>

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

// Whether `file`, in the folder of `first`, is another part of the same split model.
bool is_part_beside(const fs::path& file, const fs::path& first) {
  static const std::regex kPart("(.*)-[0-9]{5}-of-([0-9]{5}\\.gguf)");
  std::smatch a;
  std::smatch b;
  const std::string x = file.filename().string();
  const std::string y = first.filename().string();
  return std::regex_match(x, a, kPart) && std::regex_match(y, b, kPart) && a[1] == b[1] && a[2] == b[2];
}

bool belongs_to(const fs::path& output, const fs::path& input) {
  if (same_file(output, input)) return true;
  std::error_code failed;
  const bool folder = fs::is_directory(input, failed);
  for (fs::directory_iterator at(folder ? input : input.parent_path(), failed), end; !failed && at != end;
       at.increment(failed)) {
    if ((folder || is_part_beside(at->path(), input)) && same_file(output, at->path())) return true;
  }
  return false;
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
