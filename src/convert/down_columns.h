// Columns of a Down matrix as the records of a store hold them: re-encoded along the model dimension, or as the codes
// they were.
//
// Thread role: any; pure functions over bytes in memory. Ownership: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/matrix.h"
#include "tensor/record_table.h"

namespace stoke::convert {

// Columns that are taken at once: whole blocks of every source type.
inline constexpr int64_t kColumnTile = 256;

// Down in memory, as its file has it: (dim, ffn).
struct DownView {
  DType type = DType::kF32;
  int64_t dim = 0;
  int64_t ffn = 0;
  const std::byte* data = nullptr;
  const float* factors = nullptr;  // (dim), powers of two by which rows are divided first; requantized only

  // The blocks of row d from column `first` on. Requires: first is at a block's beginning.
  const std::byte* at(int64_t d, int64_t first) const {
    return data + static_cast<size_t>(d) * row_bytes(type, ffn) + row_bytes(type, first);
  }
};

// Writes Down_i of the columns [columns.begin, columns.end), at most kColumnTile from a multiple of it, to
// out + (i - columns.begin) * record.record_bytes + record.down_offset.
// `floats`: a buffer that is kept from call to call, one a thread; requantized only.
void encode_columns(const DownView& down, const NeuronRecord& record, RowRange columns, std::vector<float>* floats,
                    std::byte* out);

// The factor of each row: the power of two nearest to the root mean square of its elements. A model's few outlier
// dimensions would otherwise spoil the blocks along the model dimension that they stand in.
void row_factors(const DownView& down, float* out);

// The table of scales (which = 0) or minima (which = 1) that goes with codes: (ffn / 32, dim) halves.
void extract_scales(const DownView& down, int which, uint16_t* out);

}  // namespace stoke::convert
