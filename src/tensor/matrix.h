// Non-owning views of matrices. A matrix is `rows` rows of `cols` elements, each row contiguous in its stored type.
// Linear layers hold one output feature a row, as both GGUF and Hugging Face files do: y[r] = sum_k W[r][k] x[k].
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace stoke {

// Half-open range of rows.
struct RowRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Rows of a stored matrix. `data` is the first byte of row `rows.begin`.
struct RowsView {
  DType type = DType::kF32;
  RowRange rows;
  int64_t cols = 0;
  size_t row_bytes = 0;
  const std::byte* data = nullptr;
};

}  // namespace stoke
