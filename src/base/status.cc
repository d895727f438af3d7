#include "base/status.h"

#include <fmt/format.h>

#include <algorithm>

namespace stoke {
namespace {

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

std::string one_line(std::string text) {
  if (std::none_of(text.begin(), text.end(), is_control)) return text;
  std::string out;
  for (char c : text) {
    if (is_control(c)) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

Status::Status(Code code, std::string message) : code_(code), message_(one_line(std::move(message))) {}

}  // namespace stoke
