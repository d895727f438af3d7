#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "formats/extents.h"
#include "formats/json_text.h"
#include "formats/safetensors_header.h"

namespace stoke::formats {
namespace {

constexpr uint64_t kTextBytesMax = uint64_t{64} << 20;
constexpr size_t kShardsMax = 4096;

// Names of tensors by the shard that holds them; one shard with no names stands for a folder without an index.
using Shards = std::map<std::string, std::vector<std::string>>;

// The text of a file that may be absent: empty then.
Result<std::string> optional_text(const FileOpener& files, const std::string& path, bool json) {
  Result<std::string> text =
      json ? read_json_object(files, path, kTextBytesMax) : read_text(files, path, kTextBytesMax);
  if (text.status().code() == Code::kNotFound) return std::string();
  return text;
}

Status read_texts(const FileOpener& files, const std::string& folder, ModelFile* model) {
  Result<std::string> config = read_json_object(files, folder + "/config.json", kTextBytesMax);
  if (config.status().code() == Code::kNotFound) {
    return Status(Code::kNotFound,
                  fmt::format("{}: no config.json in this folder: name a Hugging Face model folder or a "
                              ".gguf file",
                              folder));
  }
  if (!config.ok()) return config.status();
  model->config_json = std::move(*config);
  STOKE_ASSIGN(model->tokenizer_config_json, optional_text(files, folder + "/tokenizer_config.json", true));
  STOKE_ASSIGN(model->generation_config_json, optional_text(files, folder + "/generation_config.json", true));
  STOKE_ASSIGN(model->chat_template, optional_text(files, folder + "/chat_template.jinja", false));
  if (files.open(folder + "/tokenizer.json").ok()) model->tokenizer_json = folder + "/tokenizer.json";
  return ok_status();
}

Status add_mapping(const std::string& path, const std::string& tensor, const nlohmann::json& file, Shards* shards) {
  const auto* name = file.get_ptr<const std::string*>();
  if (name == nullptr || name->empty() || name->find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
    return Status(Code::kCorrupt, fmt::format("{}: weight_map gives tensor {} no plain file name: the file is corrupt",
                                              path, shown(tensor)));
  }
  (*shards)[*name].push_back(tensor);
  return ok_status();
}

Result<Shards> parse_index(const std::string& path, const std::string& text) {
  nlohmann::json index = nlohmann::json::parse(text, nullptr, false);
  auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return Status(Code::kCorrupt, fmt::format("{}: no weight_map in it: fetch it again", path));
  }
  Shards shards;
  for (const auto& [tensor, file] : map->items()) STOKE_TRY(add_mapping(path, tensor, file, &shards));
  if (shards.size() > kShardsMax) {
    return Status(Code::kCorrupt, fmt::format("{}: lists {} files; {} are allowed", path, shards.size(), kShardsMax));
  }
  return shards;
}

Result<Shards> find_shards(const FileOpener& files, const std::string& folder) {
  if (files.open(folder + "/model.safetensors").ok()) return Shards{{"model.safetensors", {}}};
  std::string path = folder + "/model.safetensors.index.json";
  Result<std::string> text = read_json_object(files, path, kTextBytesMax);
  if (text.ok()) return parse_index(path, *text);
  if (text.status().code() != Code::kNotFound) return text.status();
  return Status(Code::kNotFound, fmt::format("{}: neither model.safetensors nor model.safetensors.index.json in this "
                                             "folder: fetch the weights as safetensors",
                                             folder));
}

Result<std::vector<TensorEntry>> read_shard(ByteSource& source) {
  const std::string& path = source.path();
  uint64_t length = 0;
  if (source.size() < sizeof(length)) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: {} bytes are too few for a safetensors file: fetch it again", path, source.size()));
  }
  STOKE_TRY(source.read(0, std::as_writable_bytes(std::span(&length, 1))));
  uint64_t rest = source.size() - sizeof(length);
  if (length > kSafetensorsHeaderMax || length > rest) {
    return Status(Code::kCorrupt, fmt::format("{}: byte 0: the header claims {} bytes; {} are left and {} allowed: the "
                                              "file is cut short or corrupt; fetch it again",
                                              path, length, rest, kSafetensorsHeaderMax));
  }
  std::string header(length, '\0');
  STOKE_TRY(source.read(sizeof(length), std::as_writable_bytes(std::span(header))));
  return parse_safetensors_header(path, header, sizeof(length) + length, rest - length);
}

// Keeps the tensors that the index assigns to this shard and fails where one of them is missing.
Status select(const std::string& path, std::vector<std::string> wanted, std::vector<TensorEntry>* tensors) {
  if (wanted.empty()) return ok_status();
  std::sort(wanted.begin(), wanted.end());
  std::erase_if(*tensors,
                [&](const TensorEntry& t) { return !std::binary_search(wanted.begin(), wanted.end(), t.name); });
  std::vector<std::string_view> present;
  for (const TensorEntry& tensor : *tensors) present.push_back(tensor.name);
  std::sort(present.begin(), present.end());
  for (const std::string& name : wanted) {
    if (!std::binary_search(present.begin(), present.end(), std::string_view(name))) {
      return Status(Code::kCorrupt, fmt::format("{}: lacks tensor {}, which model.safetensors.index.json places here: "
                                                "fetch both files again",
                                                path, shown(name)));
    }
  }
  return ok_status();
}

Status add_shard(const FileOpener& files, const std::string& path, const std::vector<std::string>& wanted,
                 ModelFile* model) {
  Result<std::unique_ptr<ByteSource>> source = files.open(path);
  if (source.status().code() == Code::kNotFound) {
    return Status(Code::kNotFound,
                  fmt::format("{}: missing, though model.safetensors.index.json lists it: fetch it", path));
  }
  if (!source.ok()) return source.status();
  STOKE_ASSIGN(std::vector<TensorEntry> tensors, read_shard(**source));
  STOKE_TRY(select(path, wanted, &tensors));
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.extent.offset < b.extent.offset; });
  for (TensorEntry& tensor : tensors) {
    tensor.extent.file = static_cast<uint32_t>(model->files.size());
    model->tensors.push_back(std::move(tensor));
  }
  model->files.push_back(path);
  model->file_sizes.push_back((*source)->size());
  if (model->tensors.size() > kTensorsMax) {
    return Status(Code::kCorrupt, fmt::format("{}: with this file the model has {} tensors; {} are allowed", path,
                                              model->tensors.size(), kTensorsMax));
  }
  return ok_status();
}

}  // namespace

Result<ModelFile> open_safetensors(const FileOpener& files, const std::string& folder) {
  std::string base = folder;
  while (base.size() > 1 && base.ends_with('/')) base.pop_back();
  ModelFile model;
  model.path = folder;
  model.kind = "safetensors";
  STOKE_TRY(read_texts(files, base, &model));
  STOKE_ASSIGN(Shards shards, find_shards(files, base));
  base += '/';
  for (const auto& [name, wanted] : shards) STOKE_TRY(add_shard(files, base + name, wanted, &model));
  STOKE_TRY(check_extents(model));
  return model;
}

}  // namespace stoke::formats
