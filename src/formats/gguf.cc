#include "formats/gguf.h"

#include <fmt/format.h>

#include <bit>
#include <utility>

#include "formats/extents.h"
#include "formats/gguf_meta.h"
#include "formats/header_reader.h"

namespace stoke::formats {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int64_t kPartsMax = 1024;
constexpr uint64_t kNameBytesMax = 255;
constexpr int64_t kAlignmentMax = 1 << 24;

using Meta = std::map<std::string, MetaValue, std::less<>>;

// What one file holds. Extents are absolute within the file; Extent::file is not set yet.
struct Part {
  std::string path;
  uint64_t size = 0;
  Meta meta;
  std::vector<TensorEntry> tensors;

  // An integer of the metadata, `absent` where there is none.
  int64_t integer(std::string_view key, int64_t absent) const {
    auto it = meta.find(key);
    if (it == meta.end()) return absent;
    const auto* value = std::get_if<int64_t>(&it->second);
    return value == nullptr ? absent : *value;
  }
};

// Names of element types that exist in GGUF files and that stoke does not compute with.
const char* foreign_type_name(uint32_t id) {
  switch (id) {
    case 9:
      return "Q8_1";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 25:
      return "I16";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 34:
      return "TQ1_0";
    case 35:
      return "TQ2_0";
    case 40:
      return "NVFP4";
    default:
      return "unknown";
  }
}

const RawType* find_raw_type(uint32_t id) {
  for (const RawType* raw : {&kRawI8, &kRawI32}) {
    if (raw->ggml_id == id) return raw;
  }
  return nullptr;
}

Status check_version(const HeaderReader& reader, uint32_t version) {
  if (version == 2 || version == 3) return ok_status();
  if (__builtin_bswap32(version) == 2 || __builtin_bswap32(version) == 3) {
    return reader.failure(Code::kUnsupported,
                          "a big-endian GGUF file; stoke reads little-endian ones: fetch that variant");
  }
  return reader.failure(Code::kUnsupported,
                        fmt::format("GGUF version {}; stoke reads 2 and 3: convert the model anew", version));
}

Status read_shape(HeaderReader& reader, std::vector<int64_t>* shape) {
  uint32_t count = 0;
  STOKE_TRY(reader.number(&count, "a tensor's number of dimensions"));
  if (count < 1 || count > kDimensionsMax) {
    return reader.failure(Code::kCorrupt, fmt::format("{} dimensions; 1 to {} are possible", count, kDimensionsMax));
  }
  shape->resize(count);
  for (uint32_t i = 0; i < count; ++i) STOKE_TRY(reader.number(&(*shape)[count - 1 - i], "a tensor's dimension"));
  return ok_status();
}

// Everything of a table entry after its name. The extent's offset is relative to the data section.
Status read_tensor(HeaderReader& reader, int64_t alignment, TensorEntry* tensor) {
  STOKE_TRY(read_shape(reader, &tensor->shape));
  uint32_t id = 0;
  STOKE_TRY(reader.number(&id, "a tensor's type"));
  const DTypeInfo* type = find_ggml_type(id);
  const RawType* raw = find_raw_type(id);
  if (type == nullptr && raw == nullptr) {
    return reader.failure(Code::kUnsupported, fmt::format("element type {} ({}) is not one stoke computes with: fetch "
                                                          "the model in another quantisation",
                                                          id, foreign_type_name(id)));
  }
  if (raw != nullptr) {
    tensor->raw_type = raw->name;
  } else {
    tensor->type = type->type;
  }
  Status sized = raw != nullptr ? raw_bytes(raw->elem_bytes, tensor->shape, &tensor->extent.bytes)
                                : tensor_bytes(type->type, tensor->shape, &tensor->extent.bytes);
  if (!sized.ok()) return reader.failure(sized.code(), sized.message());
  STOKE_TRY(reader.number(&tensor->extent.offset, "a tensor's offset"));
  if (tensor->extent.offset % static_cast<uint64_t>(alignment) != 0) {
    return reader.failure(Code::kCorrupt, fmt::format("offset {} is not a multiple of the alignment {}",
                                                      tensor->extent.offset, alignment));
  }
  return ok_status();
}

Status read_table(HeaderReader& reader, uint64_t count, int64_t alignment, Part* part) {
  constexpr uint64_t kEntryBytesMin = 8 + 4 + 8 + 4 + 8;
  if (count > kTensorsMax || count > reader.remaining() / kEntryBytesMin) {
    return Status(Code::kCorrupt, fmt::format("{}: the header claims {} tensors; {} are allowed and {} bytes are left "
                                              "for their table: the file is corrupt",
                                              part->path, count, kTensorsMax, reader.remaining()));
  }
  part->tensors.resize(count);
  for (TensorEntry& tensor : part->tensors) {
    STOKE_TRY(reader.string(&tensor.name, kNameBytesMax, "a tensor's name"));
    Status status = read_tensor(reader, alignment, &tensor);
    if (!status.ok()) {
      return Status(status.code(), fmt::format("{} (tensor {})", status.message(), shown(tensor.name)));
    }
  }
  return ok_status();
}

// Makes offsets absolute: the data section begins at the first multiple of the alignment after the table.
Status place_tensors(uint64_t header_end, int64_t alignment, Part* part) {
  uint64_t mask = static_cast<uint64_t>(alignment) - 1;
  uint64_t data = (header_end + mask) & ~mask;
  for (TensorEntry& tensor : part->tensors) {
    if (__builtin_add_overflow(tensor.extent.offset, data, &tensor.extent.offset)) {
      return Status(Code::kCorrupt, fmt::format("{}: tensor {} begins beyond byte 2^64: the file is corrupt",
                                                part->path, shown(tensor.name)));
    }
  }
  return ok_status();
}

Status alignment_of(const Part& part, int64_t* alignment) {
  constexpr int64_t kDefault = 32;
  *alignment = part.integer("general.alignment", kDefault);
  if (*alignment < 1 || *alignment > kAlignmentMax || !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
    return Status(Code::kCorrupt, fmt::format("{}: metadata key 'general.alignment' is {}; a power of two up to {} is "
                                              "wanted: the file is corrupt",
                                              part.path, *alignment, kAlignmentMax));
  }
  return ok_status();
}

Result<Part> read_part(const FileOpener& files, const std::string& path) {
  STOKE_ASSIGN(auto source, files.open(path));
  HeaderReader reader(*source, kHeaderBytesMax);
  Part part;
  part.path = path;
  part.size = source->size();
  uint32_t magic = 0;
  STOKE_TRY(reader.number(&magic, "the magic number"));
  if (magic != kMagic) return reader.failure(Code::kInvalid, "does not begin with 'GGUF': not a GGUF file");
  uint32_t version = 0;
  STOKE_TRY(reader.number(&version, "the version"));
  STOKE_TRY(check_version(reader, version));
  uint64_t tensors = 0;
  uint64_t keys = 0;
  STOKE_TRY(reader.number(&tensors, "the number of tensors"));
  STOKE_TRY(reader.number(&keys, "the number of metadata keys"));
  STOKE_TRY(read_gguf_meta(reader, keys, &part.meta));
  int64_t alignment = 0;
  STOKE_TRY(alignment_of(part, &alignment));
  STOKE_TRY(read_table(reader, tensors, alignment, &part));
  STOKE_TRY(place_tensors(reader.position(), alignment, &part));
  return part;
}

std::string part_suffix(int64_t number, int64_t count) {
  return fmt::format("-{:05d}-of-{:05d}.gguf", number + 1, count);
}

// The name that all parts share, cut from `path`, which is part `number`.
Result<std::string> part_stem(const std::string& path, int64_t number, int64_t count) {
  std::string suffix = part_suffix(number, count);
  if (!path.ends_with(suffix)) {
    return Status(Code::kInvalid, fmt::format("{}: is part {} of a model in {} files, so its name should end with {}: "
                                              "give the parts back the names they were published with",
                                              path, number + 1, count, suffix));
  }
  return path.substr(0, path.size() - suffix.size());
}

Status add_part(Part part, ModelFile* model) {
  auto file = static_cast<uint32_t>(model->files.size());
  if (model->tensors.size() + part.tensors.size() > kTensorsMax) {
    return Status(Code::kCorrupt, fmt::format("{}: with this part the model has {} tensors; {} are allowed", part.path,
                                              model->tensors.size() + part.tensors.size(), kTensorsMax));
  }
  for (TensorEntry& tensor : part.tensors) {
    tensor.extent.file = file;
    model->tensors.push_back(std::move(tensor));
  }
  if (file == 0) model->meta = std::move(part.meta);
  model->files.push_back(std::move(part.path));
  model->file_sizes.push_back(part.size);
  return ok_status();
}

Status add_split(const FileOpener& files, const std::string& named, int64_t number, int64_t count, ModelFile* model) {
  if (count > kPartsMax || number < 0 || number >= count) {
    return Status(Code::kCorrupt, fmt::format("{}: metadata says part {} of {} (split.no, split.count); up to {} parts "
                                              "are possible: the file is corrupt",
                                              named, number + 1, count, kPartsMax));
  }
  STOKE_ASSIGN(std::string stem, part_stem(named, number, count));
  for (int64_t i = 0; i < count; ++i) {
    std::string path = stem + part_suffix(i, count);
    Result<Part> part = read_part(files, path);
    if (part.status().code() == Code::kNotFound) {
      return Status(Code::kNotFound, fmt::format("{}: part {} of {} is missing: fetch it and put it beside {}", path,
                                                 i + 1, count, named));
    }
    if (!part.ok()) return part.status();
    if (part->integer("split.no", -1) != i || part->integer("split.count", -1) != count) {
      return Status(
          Code::kCorrupt,
          fmt::format("{}: by its name part {} of {}, by its metadata part {} of {}: fetch the "
                      "parts again",
                      path, i + 1, count, part->integer("split.no", -1) + 1, part->integer("split.count", -1)));
    }
    STOKE_TRY(add_part(std::move(*part), model));
  }
  return ok_status();
}

}  // namespace

Result<ModelFile> open_gguf(const FileOpener& files, const std::string& path) {
  ModelFile model;
  model.path = path;
  model.kind = "gguf";
  STOKE_ASSIGN(Part named, read_part(files, path));
  int64_t count = named.integer("split.count", 1);
  int64_t number = named.integer("split.no", 0);
  if (count <= 1) {
    STOKE_TRY(add_part(std::move(named), &model));
  } else {
    STOKE_TRY(add_split(files, path, number, count, &model));
    int64_t expected = 0;
    if (model.get("split.tensors.count", &expected) && expected != static_cast<int64_t>(model.tensors.size())) {
      return Status(Code::kCorrupt, fmt::format("{}: metadata key 'split.tensors.count' says {} tensors, the {} parts "
                                                "hold {}: fetch the parts again",
                                                path, expected, count, model.tensors.size()));
    }
  }
  STOKE_TRY(check_extents(model));
  return model;
}

}  // namespace stoke::formats
