// The units of a model's matrices: row blocks as they lie in their files, each small enough for one slot, and the order
// in which a forward pass of the dense parts consumes them.
//
// A unit never crosses a piece (a tensor in a file), an expert, or one of the row ranges that the forward pass asks
// for. Rows of a gated product's two matrices are cut alike, and stand interleaved in the order, as products consume
// them. Plain data, built once by the control thread, const afterwards. Ownership: files are the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "cache/unit_cache.h"
#include "model/config.h"
#include "model/weight_source.h"
#include "model/weights.h"
#include "sys/files.h"

namespace stoke::pipeline {

// Where the rows of a matrix lie. Every piece holds whole rows, as they will be used.
struct MatrixPlace {
  struct Piece {
    const sys::File* file = nullptr;
    uint64_t offset = 0;
    int64_t rows = 0;
  };
  std::string name;  // for messages
  model::MatrixInfo info;
  std::vector<Piece> pieces;  // their rows add up to info.rows
};

struct Unit {
  int32_t matrix = 0;
  RowRange rows;
  const sys::File* file = nullptr;
  uint64_t offset = 0;  // of the first row
  uint32_t bytes = 0;
  bool expert = false;
};

class UnitTable {
 public:
  // unit_bytes: about how large units become; 0: chosen from the model's size, 1 MiB for a large one.
  UnitTable(std::vector<MatrixPlace> matrices, const model::Weights& weights, size_t unit_bytes);

  const MatrixPlace& matrix(model::MatrixId id) const { return matrices_[static_cast<size_t>(id.index)]; }
  const Unit& unit(cache::UnitId id) const { return units_[static_cast<size_t>(id.index)]; }
  int64_t size() const { return static_cast<int64_t>(units_.size()); }
  // The unit that holds a row. Requires: the row belongs to a product of the forward pass.
  cache::UnitId find(model::MatrixId id, int64_t row) const;
  // Dense units in the order of a pass.
  std::span<const int32_t> order() const { return order_; }
  // Where in order() the part begins that a pass without logits leaves out.
  int64_t tail() const { return tail_; }
  // Place of a dense unit in order(); -1 for an expert's.
  int64_t position(cache::UnitId id) const { return positions_[static_cast<size_t>(id.index)]; }
  size_t slot_bytes() const { return slot_bytes_; }
  // Bytes of all units, and of the experts' alone.
  uint64_t bytes() const { return bytes_; }
  uint64_t expert_bytes() const { return expert_bytes_; }
  // Expert units that one token of the widest layer takes.
  int64_t layer_expert_units(const model::Config& config) const;

 private:
  // Rows [begin, end) of a matrix, all from one piece, to be cut into blocks.
  struct Span {
    int32_t matrix = 0;
    RowRange rows;
    const sys::File* file = nullptr;
    uint64_t offset = 0;
    bool expert = false;
  };
  void walk(const model::Weights& weights);
  void add_pair(const model::ExpectedProduct& product, bool expert);
  void add_experts(const model::ExpertSlices& slices);
  std::vector<Span> spans(const model::MatrixSlice& slice, bool expert) const;
  std::vector<int32_t> cut(const Span& span);
  void index();

  std::vector<MatrixPlace> matrices_;
  size_t unit_bytes_ = 0;
  std::vector<Unit> units_;
  std::vector<int32_t> order_;
  std::vector<int64_t> positions_;
  std::vector<std::vector<int32_t>> by_matrix_;  // units of a matrix, rows ascending
  int64_t tail_ = 0;
  size_t slot_bytes_ = 0;
  uint64_t bytes_ = 0;
  uint64_t expert_bytes_ = 0;
};

}  // namespace stoke::pipeline
