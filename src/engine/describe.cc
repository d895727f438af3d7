#include "engine/describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <utility>

#include "formats/neuron_store.h"
#include "tensor/dtype.h"

namespace stoke::engine {
namespace {

// general.file_type: mixes of types have names of their own, the rest are called after the type they hold most of.
constexpr std::array<std::pair<int64_t, const char*>, 8> kMixes = {{{11, "Q3_K_S"},
                                                                    {12, "Q3_K_M"},
                                                                    {13, "Q3_K_L"},
                                                                    {14, "Q4_K_S"},
                                                                    {15, "Q4_K_M"},
                                                                    {16, "Q5_K_S"},
                                                                    {17, "Q5_K_M"},
                                                                    {21, "Q2_K_S"}}};

std::string quantization(const formats::ModelFile& file) {
  int64_t file_type = -1;
  if (file.get("general.file_type", &file_type)) {
    for (const auto& [number, name] : kMixes) {
      if (number == file_type) return name;
    }
  }
  const auto shares = type_shares(file);
  return shares.empty() ? "" : shares.front().type;
}

std::string model_name(const formats::ModelFile& file) {
  std::string name;
  if (file.get("general.name", &name) && !name.empty()) return name;
  const std::filesystem::path path = std::filesystem::path(file.path).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

// Matrices as the plan sees them (a packed tensor's shape is not its number of weights), vectors as the file has them.
int64_t parameters(const Prepared& prepared) {
  int64_t count = 0;
  for (const MatrixSpec& matrix : prepared.loaded.plan.matrices) count += matrix.info.rows * matrix.info.cols;
  for (const RecordTable& table : prepared.loaded.tables) {
    const int64_t rows = table.record.layout == RecordLayout::kBundle ? 3 : 2;
    count += table.neurons * rows * table.record.dim;
  }
  for (const auto& tensor : prepared.file.tensors) {
    if (tensor.shape.size() == 1 && !tensor.name.starts_with("stoke.")) count += tensor.cols();
  }
  return count;
}

}  // namespace

std::vector<Fit::TypeShare> type_shares(const formats::ModelFile& file) {
  std::map<DType, Fit::TypeShare> by_type;
  for (const auto& tensor : file.tensors) {
    if (tensor.name.starts_with("stoke.")) continue;  // checksums, firing rates
    const bool raw = !tensor.raw_type.empty();        // records
    Fit::TypeShare& share = by_type[raw ? DType::kCount : tensor.type];
    share.type = raw ? "records" : stoke::info(tensor.type).title;
    ++share.tensors;
    share.bytes += static_cast<int64_t>(tensor.extent.bytes);
  }
  std::vector<Fit::TypeShare> shares;
  shares.reserve(by_type.size());
  for (const auto& [type, share] : by_type) shares.push_back(share);
  std::stable_sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return shares;
}

std::string describe_store(const Prepared& prepared) {
  if (prepared.loaded.tables.empty()) return "";
  const NeuronRecord& record = prepared.loaded.tables.front().record;
  int64_t neurons = 0;
  for (const RecordTable& table : prepared.loaded.tables) neurons += table.neurons;
  const bool bundle = record.layout == RecordLayout::kBundle;
  std::string order;
  prepared.file.get(formats::store_keys::kOrder, &order);
  const char* known = "";
  if (!order.empty()) known = order == "hot-first" ? "; those that fire most first" : "; how often each fires is known";
  return fmt::format("{} layout: {}; {} neurons in records of {} bytes: {}Up {} | Down {}{}{}",
                     formats::layout_name(record.layout), bundle ? "gates in the records" : "gates apart", neurons,
                     record.record_bytes, bundle ? fmt::format("Gate {} | ", info(record.gate_type).title) : "",
                     info(record.up_type).title, record.down_encoding == DownEncoding::kCodes ? "codes of " : "",
                     info(record.down_type).title, known);
}

ModelInfo describe(const Prepared& prepared) {
  const model::Config& config = prepared.loaded.config;
  return {.path = prepared.file.path,
          .name = model_name(prepared.file),
          .architecture = config.family,
          .quantization = quantization(prepared.file),
          .parameters = parameters(prepared),
          .layers = config.layers,
          .vocabulary = config.vocab,
          .context_length = config.context,
          .has_chat_template = prepared.tokenizer->has_chat_template()};
}

}  // namespace stoke::engine
