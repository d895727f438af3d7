#include "formats/synth_rows.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace stoke::formats {
namespace {

// Zero bytes are zero in every type.
void put_zero(std::span<std::byte> out) { std::fill(out.begin(), out.end(), std::byte{0}); }

}  // namespace

SynthRows::SynthRows(SynthRecipe recipe, DType type, int64_t columns, uint64_t seed)
    : recipe_(std::move(recipe)),
      type_(type),
      row_bytes_(stoke::row_bytes(type, columns)),
      part_bytes_(takes_constant(type) ? stoke::row_bytes(type, SynthPlan::kConstantDims) : 0),
      plain_(type, recipe_.deviation, seed),
      slow_(type, recipe_.slow_deviation + recipe_.slow_rows_deviation, ~seed) {}

void SynthRows::fill(int64_t row, std::span<std::byte> out) {
  CHECK(out.size() == row_bytes_);
  const int64_t dim = recipe_.stream_rows > 0 ? row % recipe_.stream_rows : row;
  if (recipe_.stream_rows > 0 && dim < SynthPlan::kConstantDims + SynthPlan::kSlowDims) {
    const bool slow = dim >= SynthPlan::kConstantDims && recipe_.slow_rows_deviation > 0;
    return slow ? slow_.fill(out) : put_zero(out);
  }
  if (recipe_.deviation > 0) {
    plain_.fill(out);
  } else {
    put_zero(out);
  }
  if (recipe_.reads_stream && part_bytes_ > 0) fill_stream_columns(row, out);
}

void SynthRows::fill_stream_columns(int64_t row, std::span<std::byte> out) {
  const std::span<std::byte> constant = out.first(part_bytes_);
  // subspan(offset, count) would look whether the count is "all the rest"; g++ 12 follows that case into a fill of it.
  const std::span<std::byte> slow = out.subspan(part_bytes_).first(part_bytes_);
  if (recipe_.constants.empty()) {
    put_zero(constant);
  } else {
    const std::vector<float>& values = recipe_.constants;
    put_constant(type_, values[static_cast<size_t>(row) % values.size()], constant);
  }
  if (recipe_.slow_deviation > 0) {
    slow_.fill(slow);
  } else {
    put_zero(slow);
  }
}

}  // namespace stoke::formats
