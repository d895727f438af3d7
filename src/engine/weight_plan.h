// Which bytes of which file make up each matrix: the plan that the loader writes and a weight source carries out.
//
// Plain data. A matrix is its pieces laid one after another: one piece for a plain tensor, one per expert where a
// folder keeps each expert in a tensor of its own. A piece holds whole rows. Nearly every piece is the rows as they
// will lie in memory (kRows and stored == info.type): read it straight into place. The others go through decode_row()
// (below) and, where info.type differs from `stored`, are quantised row by row while loading. Thread role: made by the
// control thread, const afterwards. Ownership: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/model_file.h"
#include "model/weight_source.h"
#include "tensor/dtype.h"

namespace stoke::engine {

// How a piece's bytes hold its rows.
enum class PieceLayout : uint8_t {
  kRows,        // row after row, each row_bytes(stored, cols)
  kTransposed,  // (cols, source_rows) elements of a float type: the matrix transposed
  kMxfp4Split,  // extent: (source_rows, cols/32, 16) nibble pairs (2i, 2i+1); scales: (source_rows, cols/32) exponents
};

struct Piece {
  formats::Extent extent;
  formats::Extent scales;   // kMxfp4Split only
  int64_t rows = 0;         // rows of the matrix that this piece gives
  int64_t source_rows = 0;  // rows that it holds: more than `rows` where only some are taken
  int64_t row_begin = 0;    // row i of the piece is source row row_begin + i * row_step
  int64_t row_step = 1;
};

struct MatrixSpec {
  std::string name;            // the (first) tensor's name, for messages
  model::MatrixInfo info;      // as it lies in memory
  DType stored = DType::kF32;  // as it lies in the file; where != info.type, rows are converted while loading
  PieceLayout layout = PieceLayout::kRows;
  std::vector<Piece> pieces;  // their rows add up to info.rows
  bool apart = false;         // no product uses it: who needs it reads and keeps it, and no source does
  int layer = -1;             // order of consumption; -1: embedding, layers: head and other things after the last layer

  // The pieces can be read straight into place.
  bool verbatim() const { return layout == PieceLayout::kRows && stored == info.type; }
};

// matrices[i] is the matrix that MatrixId{i} names.
struct WeightPlan {
  std::vector<MatrixSpec> matrices;
  uint64_t bytes() const;  // of all matrices in memory
};

// Row `row` (0 <= row < piece.rows) of a piece whose bytes are in memory, written to `out` in the type spec.stored
// (row_bytes(spec.stored, spec.info.cols) bytes). `scales` is null but for kMxfp4Split.
void decode_row(const MatrixSpec& spec, const Piece& piece, const std::byte* data, const std::byte* scales, int64_t row,
                std::byte* out);

}  // namespace stoke::engine
