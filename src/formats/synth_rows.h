// Rows of a synthetic matrix, made from its recipe (synth_plan.h) directly in the stored type.
//
// Rows are filled in ascending order; the same seed gives the same bytes. Thread role: any, one object per thread; no
// allocation after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/synth_blocks.h"
#include "formats/synth_plan.h"
#include "tensor/dtype.h"

namespace stoke::formats {

class SynthRows {
 public:
  // Where `type` does not take constants, the columns that the recipe names are random as the others.
  SynthRows(SynthRecipe recipe, DType type, int64_t columns, uint64_t seed);
  size_t row_bytes() const { return row_bytes_; }
  // Requires: out.size() == row_bytes().
  void fill(int64_t row, std::span<std::byte> out);

 private:
  void fill_stream_columns(int64_t row, std::span<std::byte> out);

  SynthRecipe recipe_;
  DType type_;
  size_t row_bytes_;
  size_t part_bytes_ = 0;  // of 32 columns, where they are blocks of their own
  BlockSource plain_;
  BlockSource slow_;
};

}  // namespace stoke::formats
