// Fuzzes the GGUF reader: the input is both parts of a split model, or one file. Extents of what opens are checked.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  stoke::formats::MemoryFiles files;
  files.add("m-00001-of-00002.gguf", bytes);
  files.add("m-00002-of-00002.gguf", bytes);
  const auto model = stoke::formats::open_gguf(files, "m-00001-of-00002.gguf");
  if (!model.ok()) {
    CHECK(!model.status().message().empty());
    CHECK(model.status().message().find('\n') == std::string::npos);
    return 0;
  }
  for (const auto& tensor : model->tensors) {
    CHECK(tensor.extent.offset <= size && tensor.extent.bytes <= size - tensor.extent.offset);
    CHECK(tensor.rows() * tensor.cols() > 0);
    CHECK(stoke::row_bytes(tensor.type, tensor.cols()) * static_cast<size_t>(tensor.rows()) == tensor.extent.bytes);
  }
  return 0;
}
