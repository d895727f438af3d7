#include "convert/row_reader.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"

namespace stoke::convert {

RowReader::RowReader(const std::vector<engine::OpenedFile>& files, const engine::WeightPlan& plan)
    : plan_(plan),
      reader_(files, engine::ResidentOptions::Reads::kAuto,
              {.dequantize = kernels::best().dequantize_row, .quantize = kernels::quantize_row}) {}

Status RowReader::read(model::MatrixId id, RowRange rows, std::byte* dst) {
  const engine::MatrixSpec& spec = plan_.matrices[static_cast<size_t>(id.index)];
  CHECK(rows.begin >= 0 && rows.end <= spec.info.rows);
  int64_t first = 0;  // of the piece
  for (size_t p = 0; p < spec.pieces.size() && rows.size() > 0; ++p) {
    const int64_t end = first + spec.pieces[p].rows;
    const RowRange part = {rows.begin, std::min(rows.end, end)};
    if (part.size() > 0) {
      STOKE_TRY(reader_.read(spec, {id.index, static_cast<int32_t>(p), part.begin - first, part}, dst));
      dst += static_cast<size_t>(part.size()) * spec.info.row_bytes;
      rows.begin = part.end;
    }
    first = end;
  }
  CHECK(rows.size() == 0);
  return ok_status();
}

Status RowReader::read(const model::ExpertSlices& slices, RowRange rows, std::byte* dst) {
  const size_t row_bytes = plan_.matrices[static_cast<size_t>(slices.id.index)].info.row_bytes;
  while (rows.size() > 0) {
    const int64_t within = rows.begin % slices.rows;
    const int64_t count = std::min(slices.rows - within, rows.size());
    const int64_t begin = slices.first + rows.begin / slices.rows * slices.step + within;
    STOKE_TRY(read(slices.id, {begin, begin + count}, dst));
    dst += static_cast<size_t>(count) * row_bytes;
    rows.begin += count;
  }
  return ok_status();
}

}  // namespace stoke::convert
