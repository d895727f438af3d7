#include "formats/model_file.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

#include "formats/byte_source.h"
#include "formats/gguf.h"
#include "formats/neuron_store.h"
#include "formats/safetensors.h"

namespace stoke::formats {
namespace {

template <typename T>
bool get_exactly(const ModelFile& model, std::string_view key, T* out) {
  auto it = model.meta.find(key);
  if (it == model.meta.end()) return false;
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) return false;
  *out = *value;
  return true;
}

// What a file that is not GGUF seems to be, and what to do about it.
std::string guess_kind(std::string_view head) {
  auto begins = [&](std::string_view prefix) { return head.substr(0, prefix.size()) == prefix; };
  if (head.empty()) return "an empty file: fetch it again";
  if (begins("ggml") || begins("lmgg") || begins("fmgg") || begins("tjgg")) {
    return "a GGML file, older than GGUF: fetch the model as GGUF";
  }
  if (begins("version https://git-lfs")) return "a Git LFS pointer, not the file itself: run git lfs pull";
  if (begins("PK\x03\x04"))
    return "a zip archive, perhaps a PyTorch checkpoint: fetch the model as safetensors or GGUF";
  if (begins("\x1f\x8b")) return "a gzip archive: unpack it first";
  if (begins("<")) return "an HTML or XML page, so a download went wrong: fetch it again";
  if (begins("{")) return "a JSON file: name the model's folder instead";
  if (head.size() > 8 && head[8] == '{' && head.substr(4, 4) == std::string_view("\0\0\0\0", 4)) {
    return "a safetensors file: name the folder that holds it and its config.json";
  }
  return fmt::format(
      "no model that stoke knows (it begins with {}): a .gguf file or a folder with config.json is wanted",
      shown(head.substr(0, 4)));
}

// GGUF, or a neuron store, which may stand for a folder.
Result<ModelFile> open_container(const FileOpener& files, const std::string& path) {
  STOKE_ASSIGN(ModelFile model, open_gguf(files, path));
  if (is_neuron_store(model)) STOKE_TRY(restore_source_kind(&model));
  return model;
}

Result<ModelFile> open_file(const std::string& path) {
  DiskFiles files;
  STOKE_ASSIGN(auto source, files.open(path));
  std::string head(std::min<uint64_t>(source->size(), 64), '\0');
  STOKE_TRY(source->read(0, std::as_writable_bytes(std::span(head))));
  source.reset();
  if (head.substr(0, 4) == "GGUF") return open_container(files, path);
  return Status(Code::kInvalid, fmt::format("{}: {}", path, guess_kind(head)));
}

// The first name in a folder, in order, that ends so; empty where there is none.
std::string first_with_suffix(const std::string& folder, std::string_view suffix) {
  std::string first;
  DIR* listing = ::opendir(folder.c_str());
  if (listing == nullptr) return first;
  while (const dirent* entry = ::readdir(listing)) {
    std::string_view name = entry->d_name;
    if (name.ends_with(suffix) && (first.empty() || name < first)) first = name;
  }
  ::closedir(listing);
  return first;
}

Result<ModelFile> open_folder(const std::string& path) {
  Result<ModelFile> model = open_safetensors(DiskFiles(), path);
  if (model.status().code() != Code::kNotFound) return model;
  std::string gguf = first_with_suffix(path, ".gguf");
  if (!gguf.empty()) {
    return Status(Code::kNotFound,
                  fmt::format("{} (there is a {} in it: name that file)", model.status().message(), shown(gguf)));
  }
  std::string pickle = first_with_suffix(path, ".bin");
  if (!pickle.empty() && model.status().message().find("config.json") == std::string::npos) {
    return Status(Code::kNotFound, fmt::format("{} ({} looks like a PyTorch pickle, which stoke does not read)",
                                               model.status().message(), shown(pickle)));
  }
  return model;
}

}  // namespace

int64_t TensorEntry::rows() const {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

const TensorEntry* ModelFile::find(std::string_view name) const {
  for (const TensorEntry& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

bool ModelFile::get(std::string_view key, int64_t* out) const { return get_exactly(*this, key, out); }
bool ModelFile::get(std::string_view key, bool* out) const { return get_exactly(*this, key, out); }
bool ModelFile::get(std::string_view key, std::string* out) const { return get_exactly(*this, key, out); }

bool ModelFile::get(std::string_view key, double* out) const {
  if (get_exactly(*this, key, out)) return true;
  int64_t integer = 0;
  if (!get_exactly(*this, key, &integer)) return false;
  *out = static_cast<double>(integer);
  return true;
}

const MetaArray* ModelFile::array(std::string_view key) const {
  auto it = meta.find(key);
  return it == meta.end() ? nullptr : std::get_if<MetaArray>(&it->second);
}

Result<ModelFile> open_model_file(const std::string& path) {
  struct stat st = {};
  if (::stat(path.c_str(), &st) != 0) {
    Code code = errno == ENOENT || errno == ENOTDIR ? Code::kNotFound : Code::kIo;
    return Status(code, fmt::format("{}: cannot open: {}", path, strerror(errno)));
  }
  return S_ISDIR(st.st_mode) ? open_folder(path) : open_file(path);
}

}  // namespace stoke::formats
