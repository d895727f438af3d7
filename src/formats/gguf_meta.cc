#include "formats/gguf_meta.h"

#include <fmt/format.h>

#include <utility>

#include "formats/byte_source.h"

namespace stoke::formats {
namespace {

constexpr uint32_t kTypeBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};  // of the shortest value of each type
static_assert(std::size(kTypeBytes) == static_cast<size_t>(GgufType::kCount));

constexpr const char* kWhat = "a metadata value";

template <typename T, typename Out>
Status widen(HeaderReader& reader, Out* out) {
  T value{};
  STOKE_TRY(reader.number(&value, kWhat));
  *out = Out{value};
  return ok_status();
}

// An integer of any type but kU64.
Status read_integer(HeaderReader& reader, GgufType type, int64_t* out) {
  switch (type) {
    case GgufType::kU8:
      return widen<uint8_t>(reader, out);
    case GgufType::kI8:
      return widen<int8_t>(reader, out);
    case GgufType::kU16:
      return widen<uint16_t>(reader, out);
    case GgufType::kI16:
      return widen<int16_t>(reader, out);
    case GgufType::kU32:
      return widen<uint32_t>(reader, out);
    case GgufType::kI32:
      return widen<int32_t>(reader, out);
    default:
      return reader.number(out, kWhat);
  }
}

Status read_float(HeaderReader& reader, GgufType type, double* out) {
  return type == GgufType::kF32 ? widen<float>(reader, out) : reader.number(out, kWhat);
}

Status read_bool(HeaderReader& reader, bool* out) {
  uint8_t byte = 0;
  STOKE_TRY(reader.number(&byte, kWhat));
  if (byte > 1) {
    return reader.failure(Code::kCorrupt, fmt::format("a boolean is {}; 0 and 1 are possible", byte));
  }
  *out = byte == 1;
  return ok_status();
}

// Reads `count` elements with read(element) into a fresh vector. Requires: count has been compared with the bytes left.
template <typename T, typename Read>
Status read_elements(uint64_t count, MetaValue* out, Read read) {
  std::vector<T> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    T value{};
    STOKE_TRY(read(&value));
    values[i] = std::move(value);
  }
  *out = MetaArray(std::move(values));
  return ok_status();
}

Status read_type(HeaderReader& reader, GgufType* type) {
  uint32_t id = 0;
  STOKE_TRY(reader.number(&id, "the type of a metadata value"));
  if (id >= static_cast<uint32_t>(GgufType::kCount)) {
    return reader.failure(Code::kCorrupt, fmt::format("metadata type {} does not exist", id));
  }
  *type = static_cast<GgufType>(id);
  return ok_status();
}

Status read_array(HeaderReader& reader, MetaValue* out) {
  GgufType type{};
  STOKE_TRY(read_type(reader, &type));
  if (type == GgufType::kArray) return reader.failure(Code::kUnsupported, "arrays inside arrays are not supported");
  uint64_t count = 0;
  STOKE_TRY(reader.number(&count, "the length of an array"));
  uint64_t elem_bytes = kTypeBytes[static_cast<size_t>(type)];
  if (count > kArrayLengthMax || count > reader.remaining() / elem_bytes) {
    return reader.failure(Code::kCorrupt,
                          fmt::format("an array claims {} elements, but {} bytes are left and {} elements allowed: the "
                                      "file is cut short or corrupt; fetch it again",
                                      count, reader.remaining(), kArrayLengthMax));
  }
  switch (type) {
    case GgufType::kF32:
    case GgufType::kF64:
      return read_elements<double>(count, out, [&](double* v) { return read_float(reader, type, v); });
    case GgufType::kBool:
      return read_elements<bool>(count, out, [&](bool* v) { return read_bool(reader, v); });
    case GgufType::kString:
      return read_elements<std::string>(
          count, out, [&](std::string* v) { return reader.string(v, kStringBytesMax, "a string of an array"); });
    case GgufType::kU64:
      return read_elements<int64_t>(count, out, [&](int64_t* v) {
        STOKE_TRY(reader.number(v, kWhat));
        if (*v >= 0) return ok_status();
        return reader.failure(Code::kUnsupported, "an integer of an array is above 2^63 - 1");
      });
    default:
      return read_elements<int64_t>(count, out, [&](int64_t* v) { return read_integer(reader, type, v); });
  }
}

template <typename T>
Status read_scalar(MetaValue* out, const Status& status, T& value) {
  STOKE_TRY(status);
  *out = std::move(value);
  return ok_status();
}

Status read_u64(HeaderReader& reader, MetaValue* out) {
  uint64_t value = 0;
  STOKE_TRY(reader.number(&value, kWhat));
  if (value > static_cast<uint64_t>(INT64_MAX)) {
    *out = static_cast<double>(value);
  } else {
    *out = static_cast<int64_t>(value);
  }
  return ok_status();
}

Status read_value(HeaderReader& reader, MetaValue* out) {
  GgufType type{};
  STOKE_TRY(read_type(reader, &type));
  switch (type) {
    case GgufType::kArray:
      return read_array(reader, out);
    case GgufType::kU64:
      return read_u64(reader, out);
    case GgufType::kString: {
      std::string value;
      Status status = reader.string(&value, kStringBytesMax, "a metadata string");
      return read_scalar(out, status, value);
    }
    case GgufType::kBool: {
      bool value = false;
      Status status = read_bool(reader, &value);
      return read_scalar(out, status, value);
    }
    case GgufType::kF32:
    case GgufType::kF64: {
      double value = 0;
      Status status = read_float(reader, type, &value);
      return read_scalar(out, status, value);
    }
    default: {
      int64_t value = 0;
      Status status = read_integer(reader, type, &value);
      return read_scalar(out, status, value);
    }
  }
}

}  // namespace

Status read_gguf_meta(HeaderReader& reader, uint64_t count, std::map<std::string, MetaValue, std::less<>>* meta) {
  constexpr uint64_t kPairBytesMin = 8 + 4 + 1;  // key length, type, a one-byte value
  if (count > kKeysMax || count > reader.remaining() / kPairBytesMin) {
    return reader.failure(Code::kCorrupt, fmt::format("the header claims {} metadata keys; {} are allowed and {} bytes "
                                                      "are left: the file is corrupt",
                                                      count, kKeysMax, reader.remaining()));
  }
  for (uint64_t i = 0; i < count; ++i) {
    std::string key;
    STOKE_TRY(reader.string(&key, kKeyBytesMax, "a metadata key"));
    auto [it, inserted] = meta->try_emplace(std::move(key));
    if (!inserted) {
      return reader.failure(Code::kCorrupt,
                            fmt::format("metadata key {} is there twice: the file is corrupt", shown(it->first)));
    }
    Status status = read_value(reader, &it->second);
    if (!status.ok()) {
      return Status(status.code(), fmt::format("{} (metadata key {})", status.message(), shown(it->first)));
    }
  }
  return ok_status();
}

}  // namespace stoke::formats
