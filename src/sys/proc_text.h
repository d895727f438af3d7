// Reading the kernel's small text files: "Key:   123 kB" tables and single numbers.
//
// Thread role: any. Ownership: values. An absent file or key is nullopt or the given default: these files differ from
// kernel to kernel and from container to container.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stoke::sys {

// The file's text without the last line break; nullopt where it cannot be read.
std::optional<std::string> read_text(const std::string& path);
// The decimal number that the text begins with.
std::optional<uint64_t> parse_number(std::string_view text);
// The number a file holds; nullopt for "max" and other words.
std::optional<uint64_t> read_number(const std::string& path);
// In lines of "key<separator or blanks>number [kB]": the number, kB as bytes.
std::optional<uint64_t> find_number(std::string_view text, std::string_view key);
// "0-3,8" -> 0 1 2 3 8. Nonsense ends the list.
std::vector<int> parse_cpu_list(std::string_view text);
std::vector<std::string_view> split(std::string_view text, char separator);

}  // namespace stoke::sys
