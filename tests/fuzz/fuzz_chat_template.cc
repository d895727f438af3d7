// Any bytes as a template, and any bytes as messages for it: the first line is the template.
#include <cstdint>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stoke::text::ChatTemplate;
  std::string_view input(reinterpret_cast<const char*>(data), size);
  size_t end = input.find('\n');
  auto made = ChatTemplate::create(input.substr(0, end), "<s>", "</s>");
  if (!made.ok()) return 0;
  std::string messages = end == input.npos ? "[]" : std::string(input.substr(end + 1));
  auto prompt = (*made)->render({.messages = messages}, nullptr);
  if (prompt.ok()) prompt->text();
  return 0;
}
