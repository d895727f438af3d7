// SHA-256 of files, as 64 lower-case hexadecimal digits.
//
// Thread role: any. Ownership: values.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace stoke::fetch {

// Told how many bytes are done; false stops with kCancelled.
using KeepGoing = std::function<bool(uint64_t)>;

Result<std::string> sha256_file(const std::string& path, const KeepGoing& keep_going);

// "ABCD..." -> "abcd...": kInvalid when the text is not 64 hexadecimal digits.
Result<std::string> parse_sha256(std::string_view text);

}  // namespace stoke::fetch
