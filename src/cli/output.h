// Results as JSON and statistics as text: the names that scripts read.
// Thread role: main thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "stoke/stoke.h"

namespace stoke::cli {

using Json = nlohmann::ordered_json;

// The `stats` object. What has no meaning yet is null.
Json stats_json(const Stats& stats);
// One line for people.
std::string stats_line(const Stats& stats);
// What the total of a report is the sum of.
std::string memory_sum(const MemoryReport& report);
// Prints one object and a line break on standard output. Bytes that are not UTF-8 become U+FFFD.
void print_json(const Json& object);
// 16 hexadecimal digits.
std::string hex(uint64_t value);

}  // namespace stoke::cli
