// Turns a neuron store of dense layers back into a GGUF whose Down is FP32: any GGUF engine then computes with exactly
// the weights that the store holds, so that what re-encoding Down costs can be measured. usage: STORE.stoke OUT.gguf
#include <fmt/format.h>

#include <string>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/neuron_store.h"
#include "kernels/kernels.h"
#include "sys/files.h"

namespace {

using namespace stoke;
using formats::TensorEntry;

struct Layer {
  std::vector<std::byte> up;
  std::vector<float> down;  // (dim, neurons)
};

Result<Layer> read_layer(const formats::ModelFile& model, const sys::File& file, const RecordTable& table) {
  const NeuronRecord& record = table.record;
  std::vector<std::byte> bytes(table.bytes());
  STOKE_TRY(file.pread_full(bytes.data(), bytes.size(), table.offset));
  std::vector<float> factors(static_cast<size_t>(record.dim));
  const TensorEntry* tensor = model.find(store_tensor_name(formats::StorePart::kFactors, table.layer, false));
  STOKE_TRY(file.pread_full(factors.data(), factors.size() * sizeof(float), tensor->extent.offset));
  Layer layer;
  layer.down.resize(static_cast<size_t>(record.dim * table.neurons));
  std::vector<float> column(static_cast<size_t>(record.dim));
  for (int64_t i = 0; i < table.neurons; ++i) {
    const std::byte* const at = bytes.data() + static_cast<size_t>(i) * record.record_bytes;
    layer.up.insert(layer.up.end(), at + record.up_offset, at + record.down_offset);
    kernels::best().dequantize_row(record.down_type, at + record.down_offset, column.data(), record.dim);
    for (int64_t d = 0; d < record.dim; ++d) {
      layer.down[static_cast<size_t>(d * table.neurons + i)] =
          column[static_cast<size_t>(d)] * factors[static_cast<size_t>(d)];
    }
  }
  return layer;
}

Status write(const std::string& from, const std::string& to) {
  STOKE_ASSIGN(const formats::ModelFile model, formats::open_model_file(from));
  STOKE_ASSIGN(const formats::NeuronStore store, formats::read_neuron_store(model));
  if (store.layout != RecordLayout::kSplit || store.down != DownEncoding::kRequantized || model.kind != "gguf" ||
      store.tables.front().experts != 1) {
    return Status(Code::kUnsupported, "a store of a dense GGUF in split layout, Down requantized, is wanted");
  }
  formats::GgufHeader header;
  for (const auto& [key, value] : model.meta) {
    if (!key.starts_with("stoke.") && key != "general.alignment") header.set_value(key, value);
  }
  for (const formats::MatrixUnits& units : store.matrices) {
    const TensorEntry& tensor = model.tensors[units.tensor];
    if (tensor.name.find("ffn_down_factors") != std::string::npos) continue;
    header.add_tensor(tensor.name, tensor.type, tensor.shape);
  }
  for (const RecordTable& table : store.tables) {
    const std::string prefix = fmt::format("blk.{}.ffn_", table.layer);
    header.add_tensor(prefix + "up.weight", table.record.up_type, std::vector{table.neurons, store.dim});
    header.add_tensor(prefix + "down.weight", DType::kF32, std::vector{store.dim, table.neurons});
  }
  STOKE_ASSIGN(const auto writer, formats::GgufWriter::create(to, std::move(header)));
  STOKE_ASSIGN(const sys::File file, sys::File::open_read(from));
  for (const formats::MatrixUnits& units : store.matrices) {
    if (model.tensors[units.tensor].name.find("ffn_down_factors") != std::string::npos) continue;
    const formats::Extent& extent = model.tensors[units.tensor].extent;
    std::vector<std::byte> bytes(extent.bytes);
    STOKE_TRY(file.pread_full(bytes.data(), bytes.size(), extent.offset));
    STOKE_TRY(writer->append(bytes));
  }
  for (const RecordTable& table : store.tables) {
    STOKE_ASSIGN(const Layer layer, read_layer(model, file, table));
    STOKE_TRY(writer->append(layer.up));
    STOKE_TRY(writer->append(std::as_bytes(std::span(layer.down))));
  }
  return writer->finish();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const Status status = write(argv[1], argv[2]);
  if (!status.ok()) fmt::print(stderr, "{}\n", status.message());
  return status.ok() ? 0 : 1;
}
