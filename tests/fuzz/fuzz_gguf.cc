// Fuzzes the GGUF reader and the neuron store's: the input is both parts of a split model, or one file. Extents of what
// opens are checked, and those of record tables.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "formats/gguf.h"
#include "formats/neuron_store.h"

namespace {

using namespace stoke::formats;

void read_store(const MemoryFiles& files, ModelFile model, size_t size) {
  const auto store = read_neuron_store(model);
  if (!store.ok()) {
    CHECK(!store.status().message().empty());
    return;
  }
  for (const stoke::RecordTable& table : store->tables) {
    CHECK(table.offset <= size && table.bytes() <= size - table.offset);
    CHECK(table.experts > 0 && table.neurons % table.experts == 0);
    CHECK(table.record.down_offset + table.record.down_bytes <= table.record.record_bytes);
    CHECK(table.first_checksum + table.neurons <= store->records);
  }
  const auto source = files.open(model.files[0]);
  CHECK(source.ok());
  const auto checksums = load_store_checksums(**source, *store);
  CHECK(checksums.ok() || !checksums.status().message().empty());
  CHECK(restore_source_kind(&model).ok() || model.kind == "gguf");
}

}  // namespace

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
    if (!tensor.raw_type.empty()) continue;
    CHECK(stoke::row_bytes(tensor.type, tensor.cols()) * static_cast<size_t>(tensor.rows()) == tensor.extent.bytes);
  }
  if (is_neuron_store(*model)) read_store(files, *model, size);
  return 0;
}
