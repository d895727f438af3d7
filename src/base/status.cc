#include "base/status.h"

#include <algorithm>

namespace stoke {
namespace {

constexpr char kHex[] = "0123456789abcdef";

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

}  // namespace

std::string one_line(std::string text) {
  if (std::none_of(text.begin(), text.end(), is_control)) return text;
  std::string out;
  for (char c : text) {
    if (is_control(c)) {
      const auto byte = static_cast<unsigned char>(c);
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace stoke
