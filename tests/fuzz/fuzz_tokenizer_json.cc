// Any bytes as tokenizer.json: an error or a tokenizer that encodes.
#include <cstdint>
#include <string_view>

#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  auto made = stoke::text::Tokenizer::from_json(input, "");
  if (!made.ok()) return 0;
  auto ids = (*made)->encode("Hello <s> \xff 123", {.parse_special = true});
  if (ids.ok()) (*made)->decode(*ids);
  return 0;
}
