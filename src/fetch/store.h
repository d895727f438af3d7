// Names of models: what a short name, hf:owner/repo/file or URL stands for, and where its files lie once fetched.
//
// Thread role: any. Ownership: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace stoke::fetch {

// One line of the catalogue (data/catalogue.json).
struct CatalogueEntry {
  std::string name;
  std::string source;  // "hf:owner/repo/file" or a URL
  std::string sha256;  // empty: the hub's own is used
  std::optional<uint64_t> size;
  std::string licence;
  std::string about;
};

// kCorrupt, naming the entry, for anything but a well-formed catalogue.
Result<std::vector<CatalogueEntry>> parse_catalogue(std::string_view json);
Result<std::vector<CatalogueEntry>> load_catalogue(const std::string& path);

// Where names lead: taken from the environment by environment_settings(), given by tests.
struct StoreSettings {
  std::string folder;       // $STOKE_MODELS, else $XDG_DATA_HOME/stoke/models, else ~/.local/share/stoke/models
  std::string hf_endpoint;  // $HF_ENDPOINT, else https://huggingface.co
  std::string hf_token;     // $HF_TOKEN, or empty; sent to hf_endpoint only
};
StoreSettings environment_settings();

struct RemoteFile {
  std::string url;
  std::string path;    // where it goes in the store
  std::string sha256;  // empty: unknown
  std::optional<uint64_t> size;
  std::string token;
};

// The files that a name stands for: one, or all parts of a split GGUF in order. kInvalid for a malformed name,
// kNotFound for a short name that the catalogue does not have (with the names it has).
Result<std::vector<RemoteFile>> find_model(const std::string& name, const std::vector<CatalogueEntry>& catalogue,
                                           const StoreSettings& settings);

// Whether `name` is meant for find_model rather than for the file system: hf:..., http(s)://..., or in the catalogue.
bool is_remote_name(const std::string& name, const std::vector<CatalogueEntry>& catalogue);

// The files of the split model that `path` is a part of, by its name; `path` alone where it is none.
std::vector<std::string> part_paths(const std::string& path);

// The short names that begin most like `name`, in at least three characters; none where nothing begins alike.
std::vector<std::string> similar_names(const std::string& name, const std::vector<CatalogueEntry>& catalogue);

// A model that lies whole in the store.
struct StoredModel {
  std::string name;  // the short one, or hf:owner/repo/file; of a file that neither leads to, its path
  std::string path;  // of its first file
  uint64_t bytes = 0;
  int files = 1;
};
// All of them, short names first; none where there is no store yet.
std::vector<StoredModel> stored_models(const std::vector<CatalogueEntry>& catalogue, const StoreSettings& settings);

}  // namespace stoke::fetch
