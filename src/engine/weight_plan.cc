#include "engine/weight_plan.h"

#include <cstring>

#include "tensor/blocks.h"

namespace stoke::engine {
namespace {

void decode_transposed(const MatrixSpec& spec, const Piece& piece, const std::byte* data, int64_t source_row,
                       std::byte* out) {
  const size_t size = row_bytes(spec.stored, 1);
  for (int64_t c = 0; c < spec.info.cols; ++c) {
    const int64_t at = c * piece.source_rows + source_row;
    std::memcpy(out + static_cast<size_t>(c) * size, data + static_cast<size_t>(at) * size, size);
  }
}

// Folders keep neighbours in one byte; a block keeps element i and i + 16.
void decode_mxfp4(const MatrixSpec& spec, const std::byte* data, const std::byte* scales, int64_t source_row,
                  std::byte* out) {
  const int64_t blocks = spec.info.cols / 32;
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* pairs = data + (source_row * blocks + b) * 16;
    BlockMXFP4 block;
    block.e = static_cast<uint8_t>(scales[source_row * blocks + b]);
    for (int i = 0; i < 16; ++i) {
      const auto low = static_cast<uint8_t>(pairs[i / 2]);
      const auto high = static_cast<uint8_t>(pairs[8 + i / 2]);
      const int shift = (i % 2) * 4;
      block.qs[i] = static_cast<uint8_t>(((low >> shift) & 15) | (((high >> shift) & 15) << 4));
    }
    std::memcpy(out + static_cast<size_t>(b) * sizeof(block), &block, sizeof(block));
  }
}

}  // namespace

uint64_t WeightPlan::bytes() const {
  uint64_t total = 0;
  for (const MatrixSpec& m : matrices) total += static_cast<uint64_t>(m.info.rows) * m.info.row_bytes;
  return total;
}

void decode_row(const MatrixSpec& spec, const Piece& piece, const std::byte* data, const std::byte* scales, int64_t row,
                std::byte* out) {
  const int64_t source_row = piece.row_begin + row * piece.row_step;
  switch (spec.layout) {
    case PieceLayout::kRows: {
      const size_t bytes = row_bytes(spec.stored, spec.info.cols);
      std::memcpy(out, data + static_cast<size_t>(source_row) * bytes, bytes);
      return;
    }
    case PieceLayout::kTransposed:
      decode_transposed(spec, piece, data, source_row, out);
      return;
    case PieceLayout::kMxfp4Split:
      decode_mxfp4(spec, data, scales, source_row, out);
      return;
  }
}

}  // namespace stoke::engine
