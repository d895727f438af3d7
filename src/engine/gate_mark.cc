#include "engine/gate_mark.h"

#include <fmt/format.h>

namespace stoke::engine {
namespace {

using formats::Extent;

// Where stored row `row` of a matrix lies.
Result<Extent> place_of(const MatrixSpec& spec, int64_t row) {
  const uint64_t bytes = row_bytes(spec.stored, spec.info.cols);
  for (const Piece& piece : spec.pieces) {
    if (row >= piece.rows) {
      row -= piece.rows;
      continue;
    }
    if (spec.layout != PieceLayout::kRows) break;
    const auto at = static_cast<uint64_t>(piece.row_begin + row * piece.row_step);
    return Extent{.file = piece.extent.file, .offset = piece.extent.offset + at * bytes, .bytes = bytes};
  }
  return Status(Code::kUnsupported,
                fmt::format("tensor {} is not stored by rows: take a GGUF of the model", spec.name));
}

// The gates of a layer as rows of one matrix, whatever form the model has them in.
model::ExpertSlices gates_of(const model::LayerWeights& w, bool moe) {
  const auto one = [](const model::MatrixSlice& slice) {
    return model::ExpertSlices{
        .id = slice.id, .first = slice.rows.begin, .step = slice.rows.size(), .rows = slice.rows.size()};
  };
  if (w.sparse.valid()) return moe ? w.sparse.gates : one(w.sparse.gate);
  return moe ? w.moe.gate : one(w.ffn.gate);
}

}  // namespace

Result<GateMark> mark_gates(const formats::ModelFile& file, const ModelPlan& loaded) {
  GateMark out;
  std::vector<Extent> rows;
  for (size_t l = 0; l < loaded.weights.layers.size(); ++l) {
    const model::LayerWeights& w = loaded.weights.layers[l];
    const bool moe = loaded.config.layer[l].moe;
    const int64_t experts = moe ? loaded.config.moe.experts : 1;
    const model::ExpertSlices gates = gates_of(w, moe);
    const int64_t neurons = w.sparse.valid() ? w.sparse.neurons : gates.rows;
    out.layers.push_back({.experts = experts, .neurons = neurons});
    for (int64_t k = 0; k < formats::kFingerprintRows; ++k) {
      const int64_t row = formats::fingerprint_row(k, experts * neurons);
      if (gates.valid()) {
        const MatrixSpec& spec = loaded.plan.matrices[static_cast<size_t>(gates.id.index)];
        STOKE_ASSIGN(const Extent at, place_of(spec, gates.first + row / neurons * gates.step + row % neurons));
        rows.push_back(at);
      } else {  // in the records
        const RecordTable& table = loaded.tables[static_cast<size_t>(w.sparse.table)];
        rows.push_back({.file = table.file,
                        .offset = table.offset_of(row) + table.record.gate_offset,
                        .bytes = row_bytes(table.record.gate_type, table.record.dim)});
      }
    }
  }
  STOKE_ASSIGN(out.fingerprint, formats::firing_fingerprint(file, rows));
  return out;
}

}  // namespace stoke::engine
