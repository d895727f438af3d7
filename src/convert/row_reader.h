// Rows of the source's matrices, as they will lie in the store, whatever container they come from.
//
// Thread role: one thread. Ownership: refers to the files and the plan it was made with.
// Errors: kIo and kCorrupt naming file and offset.
#pragma once

#include <cstddef>
#include <vector>

#include "base/status.h"
#include "engine/chunk_reader.h"
#include "engine/weight_plan.h"
#include "model/weights.h"

namespace stoke::convert {

class RowReader {
 public:
  // The plan's matrices must hold their rows in order (PieceLayout::kRows); see store_plan.h.
  RowReader(const std::vector<engine::OpenedFile>& files, const engine::WeightPlan& plan);

  // Rows of a matrix to dst, info.row_bytes each.
  Status read(model::MatrixId id, RowRange rows, std::byte* dst);
  // The same of all experts' rows laid one after another: row e * slices.rows + r is expert e's r.
  Status read(const model::ExpertSlices& slices, RowRange rows, std::byte* dst);

 private:
  const engine::WeightPlan& plan_;
  engine::ChunkReader reader_;
};

}  // namespace stoke::convert
