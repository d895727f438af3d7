// StreamSource: what happens to a block that was read.
#include <fmt/format.h>

#include "pipeline/stream_source.h"

namespace stoke::pipeline {

using cache::UnitId;

Status damaged_matrix(const std::string& path, const std::string& tensor, uint64_t offset) {
  return Status(Code::kCorrupt, fmt::format("{}: tensor {}, offset {}: its checksum does not match, twice: fetch or "
                                            "convert the store again",
                                            path, tensor, offset));
}

// Of bytes that came, or did not.
Status StreamSource::read_failure_of(UnitId id, const io::Read& read, const io::Done& done) const {
  const Unit& unit = table_.unit(id);
  if (done.error != 0) return io::read_failure(read, done).with("tensor " + table_.matrix({unit.matrix}).name);
  if (checks_ == nullptr) return ok_status();
  return damage_of(id, checks_->first_damaged(first_row(id), unit.offset, unit.bytes));
}

Status StreamSource::damage_of(UnitId id, std::optional<uint64_t> at) const {
  const Unit& unit = table_.unit(id);
  return at ? damaged_matrix(unit.file->path(), table_.matrix({unit.matrix}).name, *at) : ok_status();
}

void StreamSource::on_read(const io::Read& read, const io::Done& done) {
  const UnitId id = {static_cast<int32_t>(read.tag)};
  const Unit& unit = table_.unit(id);
  const io::Read whole = read_of(id, live(id).slot);
  const bool later =
      done.error == 0 && !unit.expert &&
      checker_.push({.unit = id.index, .data = first_row(id), .offset = unit.offset, .bytes = unit.bytes});
  if (!later) finish_read(id, read_failure_of(id, whole, done));
}

void StreamSource::take_checked() {
  while (const auto checked = checker_.take())
    finish_read({checked->unit}, damage_of({checked->unit}, checked->damaged));
}

// Until nothing is in flight or being checked.
void StreamSource::settle() {
  while (true) {
    while (!queue_.idle()) queue_.wait();
    checker_.hurry_all();
    take_checked();
    if (queue_.idle()) return;
  }
}

// The unit's bytes have come and were checked, or not.
void StreamSource::finish_read(UnitId id, const Status& failed) {
  Live& unit = live(id);
  if (!failed.ok()) {
    const io::Read whole = read_of(id, unit.slot);
    if (unit.guessed) return abandon_guess(id);
    if (!unit.retried && queue_.push(*this, whole, IoQueue::Priority::kUrgent)) {  // once more: some errors pass
      unit.retried = true;
      return;
    }
    if (failure_.ok()) failure_ = failed;
    if (!table_.unit(id).expert) {
      cache_.pin(id, false);
      streaming_ -= unit.pinned ? 0 : 1;
    }
    end_ahead(id);
    cache_.abandon(unit.slot);
    unit = {.pinned = unit.pinned, .pending = unit.pending};
    return;
  }
  end_ahead(id);
  const bool hold = (unit.wanted || unit.guessed) && !unit.held;
  cache_.commit(unit.slot, hold);
  if (hold) unit.held = true;
  unit.wanted = false;
  if (unit.stale) drop(id);
  feed_guesses();
}

}  // namespace stoke::pipeline
