#include "formats/safetensors_header.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "formats/byte_source.h"
#include "formats/extents.h"

namespace stoke::formats {
namespace {

// {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {"format": "pt"}}
class HeaderHandler {
 public:
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<uint64_t> shape;
    std::vector<uint64_t> offsets;
  };

  bool null() { return wrong("null"); }
  bool boolean(bool) { return wrong("a boolean"); }
  bool number_integer(int64_t) { return wrong("a negative number"); }
  bool number_float(double, const std::string&) { return wrong("a fraction"); }
  bool binary(nlohmann::json::binary_t&) { return wrong("binary data"); }

  bool number_unsigned(uint64_t value) {
    if (place_ == Place::kShape && entry_.shape.size() <= kDimensionsMax) {
      entry_.shape.push_back(value);
      return true;
    }
    if (place_ == Place::kOffsets && entry_.offsets.size() < 2) {
      entry_.offsets.push_back(value);
      return true;
    }
    return wrong("a number");
  }

  bool string(std::string& value) {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kEntry || key_ != "dtype") return wrong("a string");
    entry_.dtype = std::move(value);
    return true;
  }

  bool key(std::string& value) {
    key_ = std::move(value);
    return true;
  }

  bool start_object(size_t) {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTensors;
        return true;
      case Place::kTensors:
        if (entries_.size() >= kTensorsMax)
          return wrong(fmt::format("tensor number {}, one more than allowed", kTensorsMax + 1));
        place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kEntry;
        entry_ = Entry{.name = key_};
        return true;
      default:
        return wrong("an object");
    }
  }

  bool end_object() {
    if (place_ == Place::kEntry) entries_.push_back(std::move(entry_));
    place_ = place_ == Place::kTensors ? Place::kStart : Place::kTensors;
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::kEntry || (key_ != "shape" && key_ != "data_offsets")) return wrong("an array");
    std::vector<uint64_t>& list = key_ == "shape" ? entry_.shape : entry_.offsets;
    list.clear();
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() {
    place_ = Place::kEntry;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    if (error_.empty()) error_ = fmt::format("header byte {}: not valid JSON", position);
    return false;
  }

  const std::string& error() const { return error_; }
  std::vector<Entry>& entries() { return entries_; }

 private:
  enum class Place { kStart, kTensors, kMetadata, kEntry, kShape, kOffsets };

  bool wrong(const std::string& what) {
    error_ =
        fmt::format("header: {} where none belongs, near {}", what, shown(entry_.name.empty() ? key_ : entry_.name));
    return false;
  }

  Place place_ = Place::kStart;
  std::string key_;
  Entry entry_;
  std::vector<Entry> entries_;
  std::string error_;
};

Status type_of(const std::string& dtype, TensorEntry* out, uint64_t* bytes) {
  if (dtype == "U8") {
    out->raw_type = dtype;
    return raw_bytes(1, out->shape, bytes);
  }
  if (dtype == "F32" || dtype == "F16" || dtype == "BF16") {
    out->type = find_dtype(dtype)->type;
    return tensor_bytes(out->type, out->shape, bytes);
  }
  if (dtype.empty()) return Status(Code::kCorrupt, "has no dtype: the file is corrupt");
  return Status(Code::kUnsupported, fmt::format("has element type {}; stoke reads F32, F16, BF16 and the U8 pairs of "
                                                "MXFP4: fetch the model in one of these, or as GGUF",
                                                shown(dtype)));
}

Status convert(HeaderHandler::Entry& entry, uint64_t data_begin, uint64_t data_bytes, TensorEntry* out) {
  out->name = std::move(entry.name);
  for (uint64_t dim : entry.shape) {
    if (dim > static_cast<uint64_t>(INT64_MAX))
      return Status(Code::kCorrupt, fmt::format("has a dimension of {}", dim));
    out->shape.push_back(static_cast<int64_t>(dim));
  }
  if (out->shape.empty()) out->shape.push_back(1);  // a scalar
  uint64_t bytes = 0;
  STOKE_TRY(type_of(entry.dtype, out, &bytes));
  if (entry.offsets.size() != 2 || entry.offsets[0] > entry.offsets[1] || entry.offsets[1] > data_bytes) {
    return Status(Code::kCorrupt,
                  fmt::format("has data_offsets ({}) that are no range within the {} bytes of data: the "
                              "file is cut short or corrupt; fetch it again",
                              fmt::join(entry.offsets, ", "), data_bytes));
  }
  if (entry.offsets[1] - entry.offsets[0] != bytes) {
    return Status(Code::kCorrupt,
                  fmt::format("of type {} and shape {} takes {} bytes but has {}: the file is corrupt", entry.dtype,
                              shape_text(out->shape), bytes, entry.offsets[1] - entry.offsets[0]));
  }
  out->extent.offset = data_begin + entry.offsets[0];
  out->extent.bytes = bytes;
  return ok_status();
}

}  // namespace

Result<std::vector<TensorEntry>> parse_safetensors_header(const std::string& path, std::string_view text,
                                                          uint64_t data_begin, uint64_t data_bytes) {
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &handler)) {
    return Status(Code::kCorrupt, fmt::format("{}: {}: the file is corrupt; fetch it again", path, handler.error()));
  }
  std::vector<TensorEntry> tensors(handler.entries().size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    Status status = convert(handler.entries()[i], data_begin, data_bytes, &tensors[i]);
    if (!status.ok()) {
      return Status(status.code(), fmt::format("{}: tensor {} {}", path, shown(tensors[i].name), status.message()));
    }
  }
  return tensors;
}

}  // namespace stoke::formats
