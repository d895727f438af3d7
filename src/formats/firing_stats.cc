#include "formats/firing_stats.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "formats/json_text.h"
#include "formats/output_file.h"
#include "sys/checksum.h"
#include "tensor/half.h"

namespace stoke::formats {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "stoke-firing-2";
constexpr uint64_t kBytesMax = uint64_t{1} << 30;

Status damaged(const std::string& path, const std::string& what) {
  return Status(Code::kCorrupt,
                fmt::format("{}: {}: no firing statistics of this stoke: record them with stoke profile MODEL -f TEXT "
                            "-o STATS",
                            path, what));
}

bool is_count(const Json& value, uint64_t most) { return value.is_number_unsigned() && value.get<uint64_t>() <= most; }

// Numbers from 0 to `most` under a key.
template <typename T>
bool read_counts(const Json& object, const char* key, uint64_t most, std::vector<T>* out) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array() || found->empty()) return false;
  out->reserve(found->size());
  for (const Json& value : *found) {
    if (!is_count(value, most)) return false;
    out->push_back(static_cast<T>(value.get<uint64_t>()));
  }
  return true;
}

Result<LayerFiring> read_layer(const std::string& path, const Json& json, size_t layer, uint64_t tokens) {
  LayerFiring out;
  if (!json.is_object()) return damaged(path, fmt::format("layers[{}] is no object", layer));
  if (!read_counts(json, "tokens", tokens, &out.tokens)) {
    return damaged(path, fmt::format("layers[{}].tokens is no list of numbers up to {}", layer, tokens));
  }
  if (!read_counts(json, "fired", tokens, &out.fired) || out.fired.size() % out.tokens.size() != 0) {
    return damaged(path, fmt::format("layers[{}].fired is no list of numbers up to {}, equally many for each of {} "
                                     "experts",
                                     layer, tokens, out.tokens.size()));
  }
  return out;
}

template <typename T>
void put_counts(const std::vector<T>& counts, std::string* out) {
  char before = '[';
  for (const T count : counts) {
    fmt::format_to(std::back_inserter(*out), "{}{}", before, count);
    before = ',';
  }
  *out += ']';
}

}  // namespace

Status write_firing(const FiringStats& stats, const std::string& path) {
  STOKE_ASSIGN(const std::unique_ptr<OutputFile> file, OutputFile::create(path, 0));
  std::string text = fmt::format(
      "{{\"format\": \"{}\", \"model\": {}, \"fingerprint\": \"{:016x}\", \"tokens\": {},\n\"layers\": [", kFormat,
      Json(stats.model).dump(-1, ' ', false, Json::error_handler_t::replace), stats.fingerprint, stats.tokens);
  for (size_t layer = 0; layer < stats.layers.size(); ++layer) {
    text += layer == 0 ? "\n{\"tokens\": " : ",\n{\"tokens\": ";
    put_counts(stats.layers[layer].tokens, &text);
    text += ", \"fired\": ";
    put_counts(stats.layers[layer].fired, &text);
    text += '}';
    STOKE_TRY(file->append(std::as_bytes(std::span(text))));
    text.clear();
  }
  text += "]}\n";
  STOKE_TRY(file->append(std::as_bytes(std::span(text))));
  return file->finish();
}

Result<FiringStats> read_firing(const std::string& path, const FileOpener& files) {
  const Result<std::string> text = read_json_object(files, path, kBytesMax);
  if (text.status().code() == Code::kCorrupt) return damaged(path, "it is no JSON object");  // a text, most likely
  STOKE_TRY(text.status());
  const Json json = Json::parse(*text, nullptr, false);
  if (json.is_discarded() || json.value("format", Json()) != Json(kFormat)) {
    return damaged(path, fmt::format("its \"format\" is not {}", kFormat));
  }
  FiringStats out;
  const Json name = json.value("model", Json());
  const Json mark = json.value("fingerprint", Json());
  const Json tokens = json.value("tokens", Json());
  const Json layers = json.value("layers", Json());
  if (!is_count(tokens, UINT32_MAX) || tokens.get<uint64_t>() == 0) return damaged(path, "\"tokens\" is no count");
  out.tokens = tokens.get<int64_t>();
  if (name.is_string()) out.model = name.get<std::string>();
  const std::string digits = mark.is_string() ? mark.get<std::string>() : "";
  const bool hex =
      digits.size() == 16 && std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return isxdigit(c); });
  if (!hex) return damaged(path, "\"fingerprint\" is not sixteen hexadecimal digits");
  out.fingerprint = std::stoull(digits, nullptr, 16);
  if (!layers.is_array() || layers.empty()) return damaged(path, "\"layers\" is no list");
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    STOKE_ASSIGN(LayerFiring read, read_layer(path, layers[layer], layer, static_cast<uint64_t>(out.tokens)));
    out.layers.push_back(std::move(read));
  }
  return out;
}

Status check_firing(const FiringStats& stats, const std::string& path, std::span<const FiringShape> layers,
                    uint64_t fingerprint) {
  const auto other = [&](const std::string& what) {
    return Status(Code::kInvalid, fmt::format("{}: statistics of another model ('{}'): {}: record this model's with "
                                              "stoke profile MODEL -f TEXT -o FILE",
                                              path, stats.model, what));
  };
  if (stats.layers.size() != layers.size()) {
    return other(fmt::format("{} layers, the model has {}", stats.layers.size(), layers.size()));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerFiring& found = stats.layers[i];
    if (found.experts() == layers[i].experts && found.neurons() == layers[i].neurons) continue;
    return other(fmt::format("layer {} has {} x {} neurons, the model's has {} x {}", i, found.experts(),
                             found.neurons(), layers[i].experts, layers[i].neurons));
  }
  if (stats.fingerprint == fingerprint) return ok_status();
  return other(
      fmt::format("its gates have the fingerprint {:016x}, the model's {:016x} (other weights, or neurons in "
                  "another order)",
                  stats.fingerprint, fingerprint));
}

std::vector<uint16_t> firing_rates(const FiringStats& stats, size_t layer) {
  std::vector<uint16_t> rates;
  rates.reserve(stats.layers[layer].fired.size());
  for (const uint32_t fired : stats.layers[layer].fired) {
    rates.push_back(float_to_half(static_cast<float>(fired) / static_cast<float>(stats.tokens)));
  }
  return rates;
}

Result<uint64_t> firing_fingerprint(const ModelFile& model, std::span<const Extent> rows) {
  const DiskFiles files;
  std::unique_ptr<ByteSource> file;
  uint32_t open = UINT32_MAX;
  std::vector<uint64_t> checksums;
  std::vector<std::byte> row;
  for (const Extent& at : rows) {
    if (file == nullptr || open != at.file) {
      STOKE_ASSIGN(file, files.open(model.files[at.file]));
      open = at.file;
    }
    row.resize(at.bytes);
    STOKE_TRY(file->read(at.offset, row));
    checksums.push_back(sys::checksum64(row.data(), row.size()));
  }
  return sys::checksum64(checksums.data(), checksums.size() * sizeof(uint64_t));
}

}  // namespace stoke::formats
