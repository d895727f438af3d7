// JSON out of files nobody vouches for: checked for syntax and nesting before anything builds a tree of it.
// Thread role: any; pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "formats/byte_source.h"

namespace stoke::formats {

inline constexpr int kJsonDepthMax = 64;

// Fails with the byte where `text` stops being one JSON object nested at most `depth_max` deep. `path` is for messages.
Status check_json_object(const std::string& path, std::string_view text, int depth_max = kJsonDepthMax);

// Reads a file and checks it so.
Result<std::string> read_json_object(const FileOpener& files, const std::string& path, uint64_t bytes_max);

}  // namespace stoke::formats
