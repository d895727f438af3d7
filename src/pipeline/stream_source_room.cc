// StreamSource: single rows, and giving slots back.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "pipeline/stream_source.h"
#include "pipeline/superset.h"

namespace stoke::pipeline {

using cache::UnitId;

// A single row: from its unit where that is at hand, otherwise one small read of its own.
Status StreamSource::read_row(model::MatrixId id, int64_t row, std::byte* dst) {
  const MatrixPlace& place = table_.matrix(id);
  CHECK(row >= 0 && row < place.info.rows);
  int64_t first = 0;
  for (const MatrixPlace::Piece& piece : place.pieces) {
    if (row < first + piece.rows) {
      const uint64_t offset = piece.offset + static_cast<uint64_t>(row - first) * place.info.row_bytes;
      if (row_buffer_ == nullptr) return Status(Code::kNoMemory, "no memory for an embedding row");
      const io::Read read = superset(*piece.file, offset, place.info.row_bytes, row_buffer_->data());
      if (read.bytes > row_buffer_->size()) return Status(Code::kUnsupported, place.name + ": rows are too long");
      const Status status = queue_.read_now(read);
      if (!status.ok()) return status.with("tensor " + place.name);
      if (!piece.file->direct()) piece.file->drop_cached(read.offset, read.bytes);
      std::memcpy(dst, read.dst + (offset - read.offset), place.info.row_bytes);
      return ok_status();
    }
    first += piece.rows;
  }
  return Status(Code::kCorrupt, place.name + ": has fewer rows than it says");
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
