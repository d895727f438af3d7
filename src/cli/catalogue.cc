#include "cli/catalogue.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <filesystem>

#include "cli/verbs.h"

namespace stoke::cli {
namespace {

namespace fs = std::filesystem;

// Beside the installed program (bin/../share/stoke), or in the source tree above a build folder.
std::string catalogue_path() {
  if (const char* path = std::getenv("STOKE_CATALOGUE"); path != nullptr && path[0] != '\0') return path;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const char* relative :
       {"../share/stoke/catalogue.json", "../data/catalogue.json", "../../data/catalogue.json"}) {
    const fs::path candidate = (program / relative).lexically_normal();
    if (fs::exists(candidate, error)) return candidate.string();
  }
  return "";
}

// What looks like a short name and is none.
Status unknown_model(const std::string& name, const std::vector<fetch::CatalogueEntry>& entries) {
  const std::vector<std::string> similar = fetch::similar_names(name, entries);
  const std::string meant =
      similar.empty() ? "" : fmt::format("; there {} {}", similar.size() == 1 ? "is" : "are", fmt::join(similar, ", "));
  return Status(Code::kNotFound, fmt::format("{}: neither a file here nor a name that `stoke pull` knows{} (stoke pull "
                                             "--list shows the names)",
                                             name, meant));
}

}  // namespace

Result<std::vector<fetch::CatalogueEntry>> catalogue() {
  const std::string path = catalogue_path();
  if (path.empty()) return std::vector<fetch::CatalogueEntry>();
  return fetch::load_catalogue(path);
}

Result<std::string> resolve_model(const std::string& name_or_path) {
  std::error_code error;
  if (fs::exists(name_or_path, error)) return name_or_path;
  STOKE_ASSIGN(const auto entries, catalogue());
  if (!fetch::is_remote_name(name_or_path, entries)) {
    const bool is_path = name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".gguf") ||
                         name_or_path.ends_with(".stoke");
    if (is_path) return name_or_path;
    return unknown_model(name_or_path, entries);
  }
  STOKE_ASSIGN(const auto files, fetch::find_model(name_or_path, entries, fetch::environment_settings()));
  for (const fetch::RemoteFile& file : files) {
    if (fs::exists(file.path, error)) continue;
    return Status(Code::kNotFound, fmt::format("{}: not fetched yet ({} is absent); fetch it with: stoke pull {}",
                                               name_or_path, file.path, name_or_path));
  }
  return files.front().path;
}

}  // namespace stoke::cli
