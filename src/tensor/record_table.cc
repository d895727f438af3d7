#include "tensor/record_table.h"

#include "base/check.h"

namespace stoke {
namespace {

constexpr size_t kSector = 512;
constexpr size_t kLine = 64;

size_t padded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

bool has_codes(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kIQ4_NL:
      return true;
    default:
      return false;
  }
}

size_t code_block_bytes(DType type) {
  CHECK(has_codes(type));
  const size_t halves = info(type).has_min ? 2 : 1;
  return info(type).block_bytes - halves * sizeof(uint16_t);
}

NeuronRecord layout_record(RecordLayout layout, DownEncoding encoding, int64_t dim, DType gate, DType up, DType down) {
  NeuronRecord record{
      .layout = layout, .down_encoding = encoding, .dim = dim, .gate_type = gate, .up_type = up, .down_type = down};
  record.up_offset = layout == RecordLayout::kBundle ? row_bytes(gate, dim) : 0;
  record.down_offset = record.up_offset + row_bytes(up, dim);
  record.down_bytes = encoding == DownEncoding::kCodes ? static_cast<size_t>(dim / kCodeBlock) * code_block_bytes(down)
                                                       : row_bytes(down, dim);
  const size_t used = record.down_offset + record.down_bytes;
  const size_t sectors = padded(used, kSector);
  record.record_bytes = (sectors - used) * 4 <= used ? sectors : padded(used, kLine);
  return record;
}

}  // namespace stoke
