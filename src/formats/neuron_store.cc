#include "formats/neuron_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "formats/extents.h"
#include "formats/firing_stats.h"
#include "sys/checksum.h"

namespace stoke::formats {
namespace {

using Integers = std::vector<int64_t>;

Status damaged(const ModelFile& model, const std::string& what) {
  return Status(Code::kCorrupt, fmt::format("{}: {}: convert the model again", model.path, what));
}

Status read_text_key(const ModelFile& model, std::string_view key, const char* first, const char* second,
                     bool* is_second) {
  std::string text;
  model.get(key, &text);
  if (text != first && text != second) {
    return damaged(model, fmt::format("key {} is {}; '{}' and '{}' are known", key, shown(text), first, second));
  }
  *is_second = text == second;
  return ok_status();
}

Result<const Integers*> layer_numbers(const ModelFile& model, std::string_view key, size_t layers) {
  const MetaArray* array = model.array(key);
  const auto* numbers = array == nullptr ? nullptr : std::get_if<Integers>(array);
  if (numbers == nullptr || numbers->empty()) return damaged(model, fmt::format("key {} is no list of numbers", key));
  if (layers != 0 && numbers->size() != layers) {
    return damaged(
        model, fmt::format("key {} has {} numbers, {} has {}", key, numbers->size(), store_keys::kRecordBytes, layers));
  }
  return numbers;
}

Result<DType> type_of(const ModelFile& model, std::string_view key, int64_t ggml_id) {
  const DTypeInfo* type = ggml_id < 0 || ggml_id > INT32_MAX ? nullptr : find_ggml_type(static_cast<uint32_t>(ggml_id));
  if (type == nullptr) return damaged(model, fmt::format("key {} has element type {}", key, ggml_id));
  return type->type;
}

const TensorEntry* find_either(const ModelFile& model, StorePart part, int64_t layer, bool* experts) {
  for (const bool form : {false, true}) {
    *experts = form;
    if (const TensorEntry* found = model.find(store_tensor_name(part, layer, form))) return found;
  }
  return nullptr;
}

struct LayerKeys {
  const Integers* gate = nullptr;
  const Integers* up = nullptr;
  const Integers* down = nullptr;
  const Integers* bytes = nullptr;
};

Result<NeuronRecord> read_record(const ModelFile& model, const NeuronStore& store, const LayerKeys& keys,
                                 size_t layer) {
  STOKE_ASSIGN(const DType gate, type_of(model, store_keys::kGateTypes, (*keys.gate)[layer]));
  STOKE_ASSIGN(const DType up, type_of(model, store_keys::kUpTypes, (*keys.up)[layer]));
  STOKE_ASSIGN(const DType down, type_of(model, store_keys::kDownTypes, (*keys.down)[layer]));
  const bool codes = store.down == DownEncoding::kCodes;
  if (codes && !has_codes(down)) {
    return damaged(model, fmt::format("key {}: layer {} has codes of {}, which has none", store_keys::kDownTypes, layer,
                                      info(down).title));
  }
  for (const int64_t block : {int64_t{info(gate).block_elems}, int64_t{info(up).block_elems},
                              codes ? kCodeBlock : int64_t{info(down).block_elems}}) {
    if (store.dim % block != 0) {
      return damaged(model, fmt::format("key {}: {} is not whole blocks of {} (layer {})", store_keys::kDim, store.dim,
                                        block, layer));
    }
  }
  const NeuronRecord record = layout_record(store.layout, store.down, store.dim, gate, up, down);
  if (static_cast<int64_t>(record.record_bytes) != (*keys.bytes)[layer]) {
    return damaged(model, fmt::format("key {}: layer {} has records of {} bytes, its types give {}",
                                      store_keys::kRecordBytes, layer, (*keys.bytes)[layer], record.record_bytes));
  }
  return record;
}

// A tensor of the layer that goes with its records.
Status check_beside(const ModelFile& model, StorePart part, const RecordTable& table, bool experts, int64_t rows,
                    DType type) {
  const std::string name = store_tensor_name(part, table.layer, experts);
  const TensorEntry* tensor = model.find(name);
  if (tensor == nullptr) return damaged(model, fmt::format("tensor {} is missing", name));
  if (!tensor->raw_type.empty() || tensor->type != type || tensor->rows() != rows ||
      tensor->cols() != table.record.dim) {
    return damaged(model, fmt::format("tensor {} has shape {}; ({}, {}) of {} are wanted", name,
                                      shape_text(tensor->shape), rows, table.record.dim, info(type).title));
  }
  return ok_status();
}

Status check_layer(const ModelFile& model, const RecordTable& table, bool experts) {
  if (table.record.layout == RecordLayout::kSplit) {
    STOKE_TRY(check_beside(model, StorePart::kGate, table, experts, table.neurons, table.record.gate_type));
  }
  if (table.record.down_encoding == DownEncoding::kRequantized) {
    return check_beside(model, StorePart::kFactors, table, experts, table.experts, DType::kF32);
  }
  if (table.expert_neurons() % kCodeBlock != 0) {
    return damaged(model, fmt::format("tensor {} has {} neurons, which are not whole blocks of {}", table.name,
                                      table.expert_neurons(), kCodeBlock));
  }
  const int64_t rows = table.neurons / kCodeBlock;
  STOKE_TRY(check_beside(model, StorePart::kScales, table, experts, rows, DType::kF16));
  if (!info(table.record.down_type).has_min) return ok_status();
  return check_beside(model, StorePart::kMins, table, experts, rows, DType::kF16);
}

Status add_table(const ModelFile& model, const NeuronRecord& record, int layer, NeuronStore* store) {
  bool experts = false;
  const TensorEntry* tensor = find_either(model, StorePart::kRecords, layer, &experts);
  if (tensor == nullptr) {
    return damaged(model, fmt::format("tensor {} is missing", store_tensor_name(StorePart::kRecords, layer, false)));
  }
  const bool shaped = tensor->raw_type == kRawI8.name && tensor->shape.size() == (experts ? 3 : 2) &&
                      tensor->cols() == static_cast<int64_t>(record.record_bytes);
  if (!shaped || tensor->extent.offset % kStoreAlignment != 0) {
    return damaged(model,
                   fmt::format("tensor {} has shape {} at byte {}; records of {} bytes from a multiple of {} are "
                               "wanted",
                               tensor->name, shape_text(tensor->shape), tensor->extent.offset, record.record_bytes,
                               kStoreAlignment));
  }
  RecordTable table{.name = tensor->name,
                    .record = record,
                    .layer = layer,
                    .neurons = tensor->rows(),
                    .experts = experts ? tensor->shape[0] : 1,
                    .file = tensor->extent.file,
                    .offset = tensor->extent.offset,
                    .first_checksum = store->records};
  STOKE_TRY(check_layer(model, table, experts));
  store->records += table.neurons;  // cannot overflow: each is a byte of the file at least
  store->tables.push_back(std::move(table));
  return ok_status();
}

Status read_tables(const ModelFile& model, NeuronStore* store) {
  LayerKeys keys;
  STOKE_ASSIGN(keys.bytes, layer_numbers(model, store_keys::kRecordBytes, 0));
  const size_t layers = keys.bytes->size();
  if (layers > model.tensors.size()) return damaged(model, fmt::format("{} layers of records are claimed", layers));
  STOKE_ASSIGN(keys.gate, layer_numbers(model, store_keys::kGateTypes, layers));
  STOKE_ASSIGN(keys.up, layer_numbers(model, store_keys::kUpTypes, layers));
  STOKE_ASSIGN(keys.down, layer_numbers(model, store_keys::kDownTypes, layers));
  for (size_t layer = 0; layer < layers; ++layer) {
    STOKE_ASSIGN(const NeuronRecord record, read_record(model, *store, keys, layer));
    STOKE_TRY(add_table(model, record, static_cast<int>(layer), store));
  }
  return ok_status();
}

bool is_checksums(const TensorEntry& tensor) {
  return tensor.name == kRecordChecksums || tensor.name == kMatrixChecksums || tensor.name == kSeal;
}

void list_matrices(const ModelFile& model, NeuronStore* store) {
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const TensorEntry& tensor = model.tensors[i];
    if (is_checksums(tensor)) continue;
    const bool records = std::any_of(store->tables.begin(), store->tables.end(),
                                     [&](const RecordTable& t) { return t.name == tensor.name; });
    if (records) {
      continue;
    }
    const auto rows = static_cast<uint64_t>(tensor.rows());
    const MatrixUnits units{.tensor = i,
                            .first = store->matrix_units,
                            .count = (tensor.rows() + kChecksumRows - 1) / kChecksumRows,
                            .unit_bytes = tensor.extent.bytes / rows * static_cast<uint64_t>(kChecksumRows)};
    store->matrix_units += units.count;
    store->matrices.push_back(units);
  }
}

Status find_checksums(const ModelFile& model, std::string_view name, int64_t count, Extent* out) {
  const TensorEntry* tensor = model.find(name);
  if (tensor == nullptr) return damaged(model, fmt::format("tensor {} is missing", name));
  if (tensor->raw_type != kRawI32.name || tensor->shape != Integers{count}) {
    return damaged(
        model, fmt::format("tensor {} has shape {}; {} numbers are wanted", name, shape_text(tensor->shape), count));
  }
  *out = tensor->extent;
  return ok_status();
}

// How often neurons fire, and whether those that do so most come first; a store may know neither.
Status find_firing(const ModelFile& model, NeuronStore* store) {
  if (model.meta.find(store_keys::kOrder) != model.meta.end()) {
    STOKE_TRY(read_text_key(model, store_keys::kOrder, "source", "hot-first", &store->hot_first));
  }
  const TensorEntry* tensor = model.find(kFiring);
  if (tensor == nullptr) {
    return store->hot_first ? damaged(model, fmt::format("tensor {} is missing", kFiring)) : ok_status();
  }
  if (!tensor->raw_type.empty() || tensor->type != DType::kF16 || tensor->shape != Integers{store->records}) {
    return damaged(model, fmt::format("tensor {} has shape {}; {} numbers of F16 are wanted", kFiring,
                                      shape_text(tensor->shape), store->records));
  }
  if (!model.get(store_keys::kFiringTokens, &store->firing_tokens) || store->firing_tokens < 1) {
    return damaged(model, fmt::format("key {} is {}", store_keys::kFiringTokens, store->firing_tokens));
  }
  store->firing = tensor->extent;
  return ok_status();
}

Result<std::vector<uint32_t>> read_numbers(ByteSource& file, const Extent& extent) {
  std::vector<uint32_t> numbers(extent.bytes / sizeof(uint32_t));
  STOKE_TRY(file.read(extent.offset, std::as_writable_bytes(std::span(numbers))));
  return numbers;
}

uint32_t checksum_of(const std::vector<uint32_t>& numbers) {
  return sys::checksum32(numbers.data(), numbers.size() * sizeof(uint32_t));
}

}  // namespace

const char* layout_name(RecordLayout layout) { return layout == RecordLayout::kSplit ? "split" : "bundle"; }
const char* encoding_name(DownEncoding encoding) {
  return encoding == DownEncoding::kRequantized ? "requantized" : "codes";
}

std::string store_tensor_name(StorePart part, int64_t layer, bool experts) {
  const char* suffix = experts ? "_exps" : "";
  switch (part) {
    case StorePart::kGate:
      return fmt::format("blk.{}.ffn_gate{}.weight", layer, suffix);
    case StorePart::kRecords:
      return fmt::format("blk.{}.ffn_records{}", layer, suffix);
    case StorePart::kScales:
      return fmt::format("blk.{}.ffn_down_scales{}", layer, suffix);
    case StorePart::kMins:
      return fmt::format("blk.{}.ffn_down_mins{}", layer, suffix);
    case StorePart::kFactors:
      break;
  }
  return fmt::format("blk.{}.ffn_down_factors{}", layer, suffix);
}

uint64_t NeuronStore::record_bytes() const {
  uint64_t bytes = 0;
  for (const RecordTable& table : tables) bytes += table.bytes();
  return bytes;
}

bool is_neuron_store(const ModelFile& model) { return model.meta.find(store_keys::kVersion) != model.meta.end(); }

Status restore_source_kind(ModelFile* model) {
  bool folder = false;
  STOKE_TRY(read_text_key(*model, store_keys::kSource, "gguf", "safetensors", &folder));
  if (!folder) return ok_status();
  const auto take = [model](std::string_view key, std::string* out) {
    const auto it = model->meta.find(key);
    if (it == model->meta.end()) return;
    if (auto* text = std::get_if<std::string>(&it->second)) *out = std::move(*text);
    model->meta.erase(it);
  };
  model->kind = "safetensors";
  take(store_keys::kConfig, &model->config_json);
  take(store_keys::kTokenizer, &model->tokenizer_json_text);
  take(store_keys::kTokenizerConfig, &model->tokenizer_config_json);
  take(store_keys::kGenerationConfig, &model->generation_config_json);
  take(store_keys::kChatTemplate, &model->chat_template);
  return ok_status();
}

Result<NeuronStore> read_neuron_store(const ModelFile& model) {
  int64_t version = 0;
  int64_t cluster = 0;
  model.get(store_keys::kVersion, &version);
  if (version != kStoreVersion) {
    return Status(Code::kUnsupported, fmt::format("{}: a neuron store of version {}; this stoke reads {}: convert the "
                                                  "model again, or take a newer stoke",
                                                  model.path, version, kStoreVersion));
  }
  if (model.files.size() != 1) return damaged(model, "a neuron store in several files");
  NeuronStore store;
  bool bundle = false;
  bool codes = false;
  STOKE_TRY(read_text_key(model, store_keys::kLayout, "split", "bundle", &bundle));
  STOKE_TRY(read_text_key(model, store_keys::kDown, "requantized", "codes", &codes));
  store.layout = bundle ? RecordLayout::kBundle : RecordLayout::kSplit;
  store.down = codes ? DownEncoding::kCodes : DownEncoding::kRequantized;
  if (!model.get(store_keys::kClusterNeurons, &cluster) || cluster != kClusterNeurons) {
    return damaged(model,
                   fmt::format("key {} is {}; {} is wanted", store_keys::kClusterNeurons, cluster, kClusterNeurons));
  }
  if (!model.get(store_keys::kDim, &store.dim) || store.dim < 1 || store.dim > kRecordDimMax) {
    return damaged(model,
                   fmt::format("key {} is {}; 1 to {} are possible", store_keys::kDim, store.dim, kRecordDimMax));
  }
  STOKE_TRY(read_tables(model, &store));
  list_matrices(model, &store);
  STOKE_TRY(find_firing(model, &store));
  STOKE_TRY(find_checksums(model, kRecordChecksums, store.records, &store.record_checksums));
  STOKE_TRY(find_checksums(model, kMatrixChecksums, store.matrix_units, &store.matrix_checksums));
  STOKE_TRY(find_checksums(model, kSeal, 4, &store.seal));
  store.header_bytes = store.seal.offset;
  for (const TensorEntry& t : model.tensors) store.header_bytes = std::min(store.header_bytes, t.extent.offset);
  return store;
}

Result<std::vector<uint32_t>> load_record_checksums(const ModelFile& model) {
  STOKE_ASSIGN(const NeuronStore store, read_neuron_store(model));
  STOKE_ASSIGN(const auto file, DiskFiles().open(model.files[0]));
  STOKE_ASSIGN(StoreChecksums checksums, load_store_checksums(*file, store));
  return std::move(checksums.records);
}

Result<std::vector<uint16_t>> load_store_firing(ByteSource& file, const NeuronStore& store) {
  std::vector<uint16_t> rates;
  if (store.firing_tokens == 0) return rates;
  rates.resize(store.firing.bytes / sizeof(uint16_t));
  STOKE_TRY(file.read(store.firing.offset, std::as_writable_bytes(std::span(rates))));
  const auto wrong = std::find_if(rates.begin(), rates.end(), [](uint16_t rate) { return rate > kFiringRateMax; });
  if (wrong == rates.end()) return rates;
  return Status(Code::kCorrupt, fmt::format("{}: tensor {}: number {} is not between 0 and 1: convert the model again, "
                                            "or copy the file again",
                                            file.path(), kFiring, wrong - rates.begin()));
}

Result<uint32_t> header_checksum(ByteSource& file, uint64_t bytes) {
  std::vector<std::byte> piece(std::min(bytes, kHeaderPieceBytes));
  std::vector<uint32_t> checksums;
  for (uint64_t at = 0; at < bytes; at += piece.size()) {
    const std::span<std::byte> part = std::span(piece).first(std::min<uint64_t>(piece.size(), bytes - at));
    STOKE_TRY(file.read(at, part));
    checksums.push_back(sys::checksum32(part.data(), part.size()));
  }
  return checksum_of(checksums);
}

Result<StoreChecksums> load_store_checksums(ByteSource& file, const NeuronStore& store) {
  StoreChecksums checksums;
  STOKE_ASSIGN(const std::vector<uint32_t> seal, read_numbers(file, store.seal));
  STOKE_ASSIGN(checksums.records, read_numbers(file, store.record_checksums));
  STOKE_ASSIGN(checksums.matrices, read_numbers(file, store.matrix_checksums));
  STOKE_ASSIGN(const uint32_t header, header_checksum(file, store.header_bytes));
  const std::vector<uint32_t> found = {header, checksum_of(checksums.records), checksum_of(checksums.matrices)};
  const char* const parts[] = {"the header", "the table of record checksums", "the table of matrix checksums"};
  if (checksum_of({seal.begin(), seal.begin() + 3}) != seal[3]) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: the seal at byte {} is damaged: convert the model again, or copy the "
                              "file again",
                              file.path(), store.seal.offset));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == seal[i]) continue;
    return Status(Code::kCorrupt, fmt::format("{}: {} is damaged (checksum {:08x}, the seal says {:08x}): convert the "
                                              "model again, or copy the file again",
                                              file.path(), parts[i], found[i], seal[i]));
  }
  return checksums;
}

}  // namespace stoke::formats
