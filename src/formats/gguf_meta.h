// The metadata of a GGUF file: key-value pairs out of untrusted bytes. Internal to the GGUF reader.
// Thread role: any; pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/status.h"
#include "formats/header_reader.h"
#include "formats/model_file.h"

namespace stoke::formats {

// Limits far above what published models hold, so that a hostile file cannot make the reader allocate without end.
inline constexpr uint64_t kHeaderBytesMax = uint64_t{256} << 20;
inline constexpr uint64_t kKeysMax = 1 << 16;
inline constexpr uint64_t kKeyBytesMax = 65535;
inline constexpr uint64_t kStringBytesMax = uint64_t{64} << 20;
inline constexpr uint64_t kArrayLengthMax = uint64_t{1} << 24;

// Value type numbers of the format.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kCount
};

// Reads `count` pairs into *meta. Fails on duplicate keys, unknown types, nested arrays and anything beyond the limits.
Status read_gguf_meta(HeaderReader& reader, uint64_t count, std::map<std::string, MetaValue, std::less<>>* meta);

}  // namespace stoke::formats
