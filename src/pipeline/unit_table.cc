#include "pipeline/unit_table.h"

#include <algorithm>

#include "base/check.h"

namespace stoke::pipeline {
namespace {

constexpr int64_t kRowsTogether = 16;  // kernels like row ranges that are multiples of this
constexpr size_t kLeastUnit = size_t{16} << 10;
constexpr size_t kMostUnit = size_t{1} << 20;
constexpr uint64_t kUnitsAtLeast = 512;  // a small model is cut finely enough that a budget means something

uint64_t round_up(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

UnitTable::UnitTable(std::vector<MatrixPlace> matrices, const model::Weights& weights, size_t unit_bytes)
    : matrices_(std::move(matrices)), unit_bytes_(unit_bytes), by_matrix_(matrices_.size()) {
  if (unit_bytes_ == 0) {
    uint64_t all = 0;
    for (const MatrixPlace& m : matrices_) all += static_cast<uint64_t>(m.info.rows) * m.info.row_bytes;
    unit_bytes_ = std::clamp<size_t>(all / kUnitsAtLeast, kLeastUnit, kMostUnit);
  }
  walk(weights);
  index();
}

void UnitTable::walk(const model::Weights& weights) {
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const model::LayerWeights& w = weights.layers[l];
    for (const model::MatrixSlice& slice : {w.q, w.k, w.v}) add_pair({.w = slice}, false);
    if (l + 1 == weights.layers.size()) tail_ = static_cast<int64_t>(order_.size());
    add_pair({.w = w.o}, false);
    add_pair({.w = w.ffn.gate, .up = w.ffn.up}, false);
    add_pair({.w = w.ffn.down}, false);
    add_pair({.w = w.moe.router}, false);
    for (const model::ExpertSlices* slices : {&w.moe.gate, &w.moe.up, &w.moe.down, &w.sparse.gates}) {
      add_experts(*slices);
    }
    add_pair({.w = w.moe.shared.gate, .up = w.moe.shared.up}, false);
    add_pair({.w = w.moe.shared.down}, false);
    add_pair({.w = w.moe.shared_gate}, false);
    add_pair({.w = w.sparse.gate}, false);
  }
  add_pair({.w = weights.head}, false);
}

void UnitTable::add_experts(const model::ExpertSlices& slices) {
  if (!slices.valid()) return;
  const int64_t rows = matrices_[static_cast<size_t>(slices.id.index)].info.rows;
  for (int64_t first = slices.first; first + slices.rows <= rows; first += slices.step) {
    add_pair({.w = {slices.id, {first, first + slices.rows}}}, true);
  }
}

void UnitTable::add_pair(const model::ExpectedProduct& product, bool expert) {
  if (!product.w.valid()) return;
  std::vector<int32_t> w;
  std::vector<int32_t> up;
  for (const Span& span : spans(product.w, expert)) std::ranges::copy(cut(span), std::back_inserter(w));
  if (product.up.valid()) {
    for (const Span& span : spans(product.up, expert)) std::ranges::copy(cut(span), std::back_inserter(up));
  }
  if (expert) return;
  for (size_t i = 0; i < std::max(w.size(), up.size()); ++i) {
    if (i < w.size()) order_.push_back(w[i]);
    if (i < up.size()) order_.push_back(up[i]);
  }
}

std::vector<UnitTable::Span> UnitTable::spans(const model::MatrixSlice& slice, bool expert) const {
  const MatrixPlace& matrix = matrices_[static_cast<size_t>(slice.id.index)];
  std::vector<Span> out;
  int64_t row = 0;
  for (const MatrixPlace::Piece& piece : matrix.pieces) {
    const int64_t begin = std::max(row, slice.rows.begin);
    const int64_t end = std::min(row + piece.rows, slice.rows.end);
    if (begin < end) {
      out.push_back({.matrix = slice.id.index,
                     .rows = {begin, end},
                     .file = piece.file,
                     .offset = piece.offset + static_cast<uint64_t>(begin - row) * matrix.info.row_bytes,
                     .expert = expert});
    }
    row += piece.rows;
  }
  return out;
}

// Equal blocks of about unit_bytes_.
std::vector<int32_t> UnitTable::cut(const Span& span) {
  const size_t row_bytes = matrices_[static_cast<size_t>(span.matrix)].info.row_bytes;
  const uint64_t bytes = static_cast<uint64_t>(span.rows.size()) * row_bytes;
  const uint64_t blocks = std::max<uint64_t>(1, (bytes + unit_bytes_ / 2) / unit_bytes_);
  const auto even = static_cast<uint64_t>(span.rows.size()) / blocks + 1;
  const auto step = static_cast<int64_t>(blocks == 1 ? static_cast<uint64_t>(span.rows.size())
                                                     : round_up(even, static_cast<uint64_t>(kRowsTogether)));
  std::vector<int32_t> out;
  for (int64_t row = span.rows.begin; row < span.rows.end; row += step) {
    const RowRange rows = {row, std::min(row + step, span.rows.end)};
    out.push_back(static_cast<int32_t>(units_.size()));
    units_.push_back({.matrix = span.matrix,
                      .rows = rows,
                      .file = span.file,
                      .offset = span.offset + static_cast<uint64_t>(row - span.rows.begin) * row_bytes,
                      .bytes = static_cast<uint32_t>(static_cast<size_t>(rows.size()) * row_bytes),
                      .expert = span.expert});
  }
  return out;
}

void UnitTable::index() {
  positions_.assign(units_.size(), -1);
  for (size_t i = 0; i < order_.size(); ++i) positions_[static_cast<size_t>(order_[i])] = static_cast<int64_t>(i);
  for (size_t i = 0; i < units_.size(); ++i) {
    const Unit& unit = units_[i];
    by_matrix_[static_cast<size_t>(unit.matrix)].push_back(static_cast<int32_t>(i));
    bytes_ += unit.bytes;
    if (unit.expert) expert_bytes_ += unit.bytes;
    const uint64_t align = unit.file->alignment();
    const uint64_t superset = round_up(unit.offset % align + unit.bytes, align);
    // Slots begin at pages, so that any file's alignment is theirs, too.
    slot_bytes_ = std::max<size_t>(slot_bytes_, round_up(superset, 4096));
  }
  for (std::vector<int32_t>& list : by_matrix_) {
    std::ranges::sort(list, {}, [&](int32_t i) { return units_[static_cast<size_t>(i)].rows.begin; });
  }
}

cache::UnitId UnitTable::find(model::MatrixId id, int64_t row) const {
  const std::vector<int32_t>& list = by_matrix_[static_cast<size_t>(id.index)];
  const auto after =
      std::ranges::upper_bound(list, row, {}, [&](int32_t i) { return units_[static_cast<size_t>(i)].rows.begin; });
  CHECK(after != list.begin());
  const int32_t found = *(after - 1);
  CHECK(row < units_[static_cast<size_t>(found)].rows.end);
  return {found};
}

int64_t UnitTable::layer_expert_units(const model::Config& config) const {
  if (config.moe.experts == 0) return 0;
  int64_t experts = 0;
  for (const Unit& unit : units_) experts += unit.expert ? 1 : 0;
  const int64_t layers = std::ranges::count_if(config.layer, [](const auto& l) { return l.moe; });
  const int64_t units_per_expert = experts / std::max<int64_t>(1, layers * config.moe.experts) + 1;
  return units_per_expert * config.moe.used;
}

}  // namespace stoke::pipeline
