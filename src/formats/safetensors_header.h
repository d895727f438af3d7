// The JSON header of one safetensors file, parsed without building a tree. Internal to the safetensors reader.
// Thread role: any; pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/model_file.h"

namespace stoke::formats {

inline constexpr uint64_t kSafetensorsHeaderMax = 100'000'000;  // the format's own limit

// Parses `text`, the header of the file at `path`, whose data section is `data_bytes` long and begins at `data_begin`.
// Fails on syntax, repeated names, unsupported types, shapes and extents that disagree. Extent::file stays 0.
Result<std::vector<TensorEntry>> parse_safetensors_header(const std::string& path, std::string_view text,
                                                          uint64_t data_begin, uint64_t data_bytes);

}  // namespace stoke::formats
