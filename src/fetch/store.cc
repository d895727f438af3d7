#include "fetch/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "fetch/digest.h"
#include "sys/files.h"

namespace stoke::fetch {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr int kPartsMax = 1000;
constexpr size_t kNumberFromEnd = 19;  // of "00001-of-00005.gguf"
constexpr std::string_view kGguf = ".gguf";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

Result<CatalogueEntry> parse_entry(const std::string& name, const Json& json) {
  CatalogueEntry entry;
  entry.name = name;
  entry.source = json.at("source");
  entry.licence = json.at("licence");
  entry.about = json.value("about", "");
  if (json.contains("size")) entry.size = json.at("size").get<uint64_t>();
  if (json.contains("sha256")) {
    STOKE_ASSIGN(entry.sha256, parse_sha256(json.at("sha256").get<std::string>()));
  }
  return entry;
}

// A path below the store made of the given parts: none may step out of it.
Result<std::string> store_path(const StoreSettings& settings, const std::vector<std::string>& parts) {
  std::string path = settings.folder;
  for (const std::string& part : parts) {
    const bool sound = !part.empty() && part[0] != '.' && part.find_first_of("/\\") == std::string::npos;
    if (!sound) return Status(Code::kInvalid, fmt::format("'{}' is no name of a file or folder for the store", part));
    path += "/" + part;
  }
  return path;
}

std::vector<std::string> split_path(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t end = text.find('/'); end != std::string_view::npos; end = text.find('/')) {
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  parts.emplace_back(text);
  return parts;
}

// hf:owner/repo[@revision]/file, the file possibly in sub-folders.
Result<RemoteFile> hub_file(const std::string& name, const StoreSettings& settings) {
  std::vector<std::string> parts = split_path(std::string_view(name).substr(3));
  if (parts.size() < 3) {
    return Status(Code::kInvalid, fmt::format("'{}': write hf:owner/repo/file, for example "
                                              "hf:ggml-org/gemma-3-270m-it-GGUF/gemma-3-270m-it-Q8_0.gguf",
                                              name));
  }
  std::string revision = "main";
  const size_t at = parts[1].find('@');
  if (at != std::string::npos) {
    revision = parts[1].substr(at + 1);
    parts[1].resize(at);
  }
  RemoteFile file;
  file.url = fmt::format("{}/{}/{}/resolve/{}", settings.hf_endpoint, parts[0], parts[1], revision);
  for (size_t i = 2; i < parts.size(); ++i) file.url += "/" + parts[i];
  file.token = settings.hf_token;
  STOKE_ASSIGN(file.path, store_path(settings, parts));
  return file;
}

Result<RemoteFile> url_file(const std::string& url, const StoreSettings& settings) {
  const std::string bare = url.substr(0, url.find_first_of("?#"));
  const std::vector<std::string> parts = split_path(bare.substr(bare.find("://") + 3));
  if (parts.size() < 2 || parts.back().empty()) {
    return Status(Code::kInvalid, fmt::format("'{}': the URL names no file", url));
  }
  RemoteFile file;
  file.url = url;
  STOKE_ASSIGN(file.path, store_path(settings, {parts.back()}));
  return file;
}

Result<RemoteFile> locate(const std::string& source, const StoreSettings& settings) {
  return source.starts_with("hf:") ? hub_file(source, settings) : url_file(source, settings);
}

bool is_source(const std::string& name) {
  return name.starts_with("hf:") || name.starts_with("http://") || name.starts_with("https://");
}

const CatalogueEntry* find_entry(const std::string& name, const std::vector<CatalogueEntry>& catalogue) {
  for (const CatalogueEntry& entry : catalogue) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

// The number of parts when `path` ends in -00001-of-00005.gguf (any part), else 0.
int parts_of(const std::string& path) {
  constexpr std::string_view kShape = "-00001-of-00005.gguf";
  if (path.size() < kShape.size() || !path.ends_with(kGguf)) return 0;
  const std::string tail = path.substr(path.size() - kShape.size());
  for (size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = kShape[i] >= '0' && kShape[i] <= '9';
    if (digit ? (tail[i] < '0' || tail[i] > '9') : tail[i] != kShape[i]) return 0;
  }
  return std::atoi(tail.substr(10, 5).c_str());
}

std::string with_part(std::string text, int part) {
  const std::string number = fmt::format("{:05}", part);
  const size_t bare = text.find_first_of("?#");  // a URL's query follows the name
  const size_t end = bare == std::string::npos ? text.size() : bare;
  return text.replace(end - kNumberFromEnd, number.size(), number);
}

Result<std::vector<RemoteFile>> all_parts(const RemoteFile& one) {
  const int parts = parts_of(one.path);
  if (parts <= 1) return std::vector<RemoteFile>{one};
  if (parts > kPartsMax) return Status(Code::kInvalid, fmt::format("{}: too many parts", one.url));
  std::vector<RemoteFile> files;
  for (int part = 1; part <= parts; ++part) {
    files.push_back({with_part(one.url, part), with_part(one.path, part), "", std::nullopt, one.token});
  }
  return files;
}

Status unknown_name(const std::string& name, const std::vector<CatalogueEntry>& catalogue) {
  std::string names;
  for (const CatalogueEntry& entry : catalogue) names += (names.empty() ? "" : ", ") + entry.name;
  return Status(Code::kNotFound,
                fmt::format("no model is known as '{}'; known are {}; hf:owner/repo/file and URLs work "
                            "too",
                            name, names.empty() ? "none" : names));
}

// The model that these files are; none where one of them is absent.
std::optional<StoredModel> whole(const std::string& name, const std::vector<RemoteFile>& files) {
  StoredModel model{name, files.front().path, 0, static_cast<int>(files.size())};
  for (const RemoteFile& file : files) {
    std::error_code error;
    if (!fs::is_regular_file(file.path, error)) return std::nullopt;
    model.bytes += fs::file_size(file.path, error);
  }
  return model;
}

// Model files below the store, in order; of a split model the first part.
std::vector<std::string> model_files(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string path = at->path().string();
    if (!path.ends_with(kGguf) && !path.ends_with(".stoke")) continue;
    if (parts_of(path) <= 1 || with_part(path, 1) == path) paths.push_back(path);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The name that leads to `path`: hf:owner/repo/file where there is one.
std::string name_of(const std::string& path, const StoreSettings& settings) {
  const std::string name = "hf:" + path.substr(std::min(path.size(), settings.folder.size() + 1));
  const Result<RemoteFile> file = hub_file(name, settings);
  return file.ok() && file->path == path ? name : path;
}

}  // namespace

Result<std::vector<CatalogueEntry>> parse_catalogue(std::string_view json) {
  std::vector<CatalogueEntry> entries;
  std::string at = "the catalogue";
  try {
    const Json all = Json::parse(json);
    for (const auto& [name, entry] : all.at("models").items()) {
      at = "catalogue entry '" + name + "'";
      Result<CatalogueEntry> parsed = parse_entry(name, entry);
      if (!parsed.ok()) return Status(Code::kCorrupt, at + ": " + parsed.status().message());
      entries.push_back(std::move(*parsed));
    }
  } catch (const nlohmann::json::exception& e) {
    return Status(Code::kCorrupt, fmt::format("{}: {}", at, e.what()));
  }
  return entries;
}

Result<std::vector<CatalogueEntry>> load_catalogue(const std::string& path) {
  STOKE_ASSIGN(const std::string text, sys::read_file(path));
  Result<std::vector<CatalogueEntry>> entries = parse_catalogue(text);
  return entries.ok() ? entries : entries.status().with(path);
}

StoreSettings environment_settings() {
  StoreSettings settings;
  settings.folder = environment("STOKE_MODELS");
  if (settings.folder.empty()) {
    const std::string data = environment("XDG_DATA_HOME");
    const std::string home = environment("HOME");
    settings.folder = (data.empty() ? home + "/.local/share" : data) + "/stoke/models";
  }
  settings.hf_endpoint = environment("HF_ENDPOINT");
  if (settings.hf_endpoint.empty()) settings.hf_endpoint = "https://huggingface.co";
  while (settings.hf_endpoint.ends_with('/')) settings.hf_endpoint.pop_back();
  settings.hf_token = environment("HF_TOKEN");
  return settings;
}

Result<std::vector<RemoteFile>> find_model(const std::string& name, const std::vector<CatalogueEntry>& catalogue,
                                           const StoreSettings& settings) {
  if (is_source(name)) {
    STOKE_ASSIGN(const RemoteFile file, locate(name, settings));
    return all_parts(file);
  }
  const CatalogueEntry* entry = find_entry(name, catalogue);
  if (entry == nullptr) return unknown_name(name, catalogue);
  STOKE_ASSIGN(RemoteFile file, locate(entry->source, settings));
  file.sha256 = entry->sha256;
  file.size = entry->size;
  return all_parts(file);
}

bool is_remote_name(const std::string& name, const std::vector<CatalogueEntry>& catalogue) {
  return is_source(name) || find_entry(name, catalogue) != nullptr;
}

std::vector<std::string> part_paths(const std::string& path) {
  const int parts = parts_of(path);
  if (parts <= 1 || parts > kPartsMax) return {path};
  const size_t at = path.size() - kNumberFromEnd;  // a path has no query, and may have the characters of one
  std::vector<std::string> paths;
  for (int part = 1; part <= parts; ++part)
    paths.push_back(std::string(path).replace(at, 5, fmt::format("{:05}", part)));
  return paths;
}

std::vector<std::string> similar_names(const std::string& name, const std::vector<CatalogueEntry>& catalogue) {
  size_t most = 3;
  std::vector<std::string> names;
  for (const CatalogueEntry& entry : catalogue) {
    const auto end = std::mismatch(name.begin(), name.end(), entry.name.begin(), entry.name.end()).first;
    const auto alike = static_cast<size_t>(end - name.begin());
    if (alike > most) names.clear();
    if (alike < most) continue;
    most = alike;
    names.push_back(entry.name);
  }
  return names;
}

std::vector<StoredModel> stored_models(const std::vector<CatalogueEntry>& catalogue, const StoreSettings& settings) {
  std::vector<StoredModel> models;
  std::set<std::string> named;
  const auto add = [&](const std::string& name, const Result<std::vector<RemoteFile>>& files) {
    const auto model = files.ok() ? whole(name, *files) : std::nullopt;
    if (model && named.insert(model->path).second) models.push_back(*model);
  };
  for (const CatalogueEntry& entry : catalogue) add(entry.name, find_model(entry.name, catalogue, settings));
  for (const std::string& path : model_files(settings.folder)) {
    RemoteFile file;
    file.path = path;
    file.url = path;  // a split model's parts are named after it
    add(name_of(path, settings), all_parts(file));
  }
  return models;
}

}  // namespace stoke::fetch
