// What every verb shares: failures, sizes, terminals.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {

int fail(const Status& status) {
  tell("stoke: {}\n", status.message());
  return 1;
}

int fail_usage(const std::string& message, const std::string& verb) {
  tell("stoke: {} (see stoke {}--help)\n", Status(Code::kInvalid, message).message(), verb.empty() ? "" : verb + " ");
  return 2;
}

Result<int64_t> parse_size(const std::string& text) {
  const auto wrong = [&] {
    return Status(Code::kInvalid, "'" + text + "' is no size: write bytes, or a number with K, M, G or T, such as 2G");
  };
  char* end = nullptr;
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0])) == 0) return wrong();
  const double number = std::strtod(text.c_str(), &end);
  std::string unit(end);
  for (const char* suffix : {"iB", "B"}) {
    if (unit.size() > std::string(suffix).size() && unit.ends_with(suffix)) {
      unit.resize(unit.size() - std::string(suffix).size());
      break;
    }
  }
  const std::string units = "KMGT";
  double bytes = number;
  if (!unit.empty()) {
    const size_t power = units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
    if (unit.size() != 1 || power == std::string::npos) return wrong();
    bytes = std::ldexp(number, 10 * (static_cast<int>(power) + 1));
  }
  if (!(bytes >= 1 && bytes < 0x1p62)) return wrong();
  return static_cast<int64_t>(bytes);
}

CLI::Validator as_size() {
  return CLI::Validator(
      [](std::string& text) {
        const auto size = parse_size(text);
        if (!size.ok()) return size.status().message();
        text = std::to_string(*size);
        return std::string();
      },
      "SIZE");
}

CLI::Validator at_least(int64_t least, int64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) -> std::string {
        int64_t value = 0;
        const char* const past = text.data() + text.size();
        const auto [end, error] = std::from_chars(text.data(), past, value);
        if (error == std::errc() && end == past && value > most) return text + " is too large";
        if (error == std::errc() && end == past && value >= least) return "";
        return fmt::format("{} is not a whole number >= {}", text, least);
      },
      fmt::format(">= {}", least));
}

std::string format_size(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

std::string counted(int64_t count, const std::string& what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

bool is_terminal(int descriptor) { return isatty(descriptor) == 1; }

}  // namespace stoke::cli
