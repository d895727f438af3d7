// Fuzzes the reader of Hugging Face folders. The input is three files with 0xff between them: config.json,
// model.safetensors.index.json (empty: none) and the shard. Extents of what opens are checked.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const size_t first = bytes.find('\xff');
  const size_t second = first == std::string::npos ? first : bytes.find('\xff', first + 1);
  if (second == std::string::npos) return 0;
  const std::string index = bytes.substr(first + 1, second - first - 1);
  const std::string shard = bytes.substr(second + 1);
  stoke::formats::MemoryFiles files;
  files.add("m/config.json", bytes.substr(0, first));
  if (!index.empty()) files.add("m/model.safetensors.index.json", index);
  files.add(index.empty() ? "m/model.safetensors" : "m/1.safetensors", shard);
  const auto model = stoke::formats::open_safetensors(files, "m");
  if (!model.ok()) {
    CHECK(!model.status().message().empty());
    CHECK(model.status().message().find('\n') == std::string::npos);
    return 0;
  }
  for (const auto& tensor : model->tensors) {
    CHECK(tensor.extent.offset <= shard.size() && tensor.extent.bytes <= shard.size() - tensor.extent.offset);
    CHECK(tensor.rows() * tensor.cols() > 0);
  }
  return 0;
}
