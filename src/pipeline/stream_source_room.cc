// StreamSource: single rows, and giving slots back.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "pipeline/stream_source.h"
#include "pipeline/superset.h"

namespace stoke::pipeline {

using cache::UnitId;

// A single row, by one small read of its own; where checksums are known, with the rows that share its own.
Status StreamSource::read_row(model::MatrixId id, int64_t row, std::byte* dst) {
  const MatrixPlace& place = table_.matrix(id);
  CHECK(row >= 0 && row < place.info.rows);
  if (row_buffer_ == nullptr) return Status(Code::kNoMemory, "no memory for an embedding row");
  int64_t first = 0;
  for (const MatrixPlace::Piece& piece : place.pieces) {
    if (row < first + piece.rows) {
      const uint64_t offset = piece.offset + static_cast<uint64_t>(row - first) * place.info.row_bytes;
      Status status = read_row_at(*piece.file, place, offset, dst);
      if (status.code() == Code::kIo || status.code() == Code::kCorrupt) {  // once more: some errors pass
        status = read_row_at(*piece.file, place, offset, dst);
      }
      return status;
    }
    first += piece.rows;
  }
  return Status(Code::kCorrupt, place.name + ": has fewer rows than it says");
}

Status StreamSource::read_row_at(const sys::File& file, const MatrixPlace& place, uint64_t offset, std::byte* dst) {
  const size_t room = row_buffer_->size();
  sys::CheckedRanges::Unit unit{offset, place.info.row_bytes};
  if (checks_ != nullptr) unit = checks_->unit_of(offset);
  if (unit.bytes == 0 || unit.bytes + 2 * file.alignment() > room) unit = {offset, place.info.row_bytes};
  const io::Read read = superset(file, unit.offset, unit.bytes, row_buffer_->data());
  if (read.bytes > room) return Status(Code::kUnsupported, place.name + ": rows are too long");
  const Status status = file.pread_some(read.dst, read.bytes, read.at_least, read.offset);
  if (!status.ok()) return status.with("tensor " + place.name);
  file.drop_read(read.offset, read.bytes);
  if (checks_ != nullptr) {
    const auto damaged = checks_->first_damaged(read.dst + (unit.offset - read.offset), unit.offset, unit.bytes);
    if (damaged) return damaged_matrix(file.path(), place.name, *damaged);
  }
  std::memcpy(dst, read.dst + (offset - read.offset), place.info.row_bytes);
  return ok_status();
}

void StreamSource::unpin(UnitId id) {
  Live& unit = live(id);
  if (unit.pinned) {
    unit.pinned = false;
    --pinned_;
    if (cache_.state(id) != cache::UnitCache::State::kFree) ++streaming_;
  }
  drop(id);
}

void StreamSource::unpin_evenly(int64_t count) {
  const int64_t pinned = pinned_;
  int64_t seen = 0;
  for (const int32_t u : table_.order()) {
    if (count <= 0 || !live_[static_cast<size_t>(u)].pinned) continue;
    if ((seen + 1) * count / pinned > seen * count / pinned) unpin({u});
    ++seen;
  }
}

// What was read ahead is let go first, so that nothing is in flight. Pinned units that lie in the slots to go are
// streamed from now on.
int64_t StreamSource::shrink(int64_t slots) {
  const int64_t before = cache_.slots();
  const int64_t target = std::max(slots, options_.window + options_.expert_slots_least);
  if (target >= before) return before;
  forget_expected();
  while (!queue_.idle()) queue_.wait();
  if (!pending_.empty()) next_ = table_.position({pending_.front()});
  for (; !pending_.empty(); pending_.pop()) {
    live({pending_.front()}).pending = false;
    drop({pending_.front()});
  }
  for (int64_t s = target; s < before; ++s) {
    const UnitId id = cache_.unit({static_cast<int32_t>(s)});
    if (id.valid() && !table_.unit(id).expert) unpin(id);
  }
  const int64_t room = target - options_.expert_slots_least;
  const bool all_dense = pinned_ == static_cast<int64_t>(table_.order().size()) && pinned_ <= room;
  if (!all_dense) unpin_evenly(pinned_ - (room - options_.window));
  const int64_t left = cache_.resize(target);
  arena_.discard(static_cast<size_t>(left) * table_.slot_bytes(),
                 static_cast<size_t>(before - left) * table_.slot_bytes());
  return left;
}

}  // namespace stoke::pipeline
