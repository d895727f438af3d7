#include "pipeline/row_reader.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "pipeline/stream_source.h"
#include "pipeline/superset.h"

namespace stoke::pipeline {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

RowReader::RowReader(IoQueue& queue) : queue_(queue) {
  Result<sys::Memory> memory = sys::Memory::map(kBufferBytes);
  if (memory.ok()) buffer_ = std::move(*memory);
}

void RowReader::expect(const MatrixPlace& place, std::span<const int32_t> rows) {
  settle();
  place_ = &place;
  rows_ = rows;
  started_ = given_ = 0;
  stride_ = slot_bytes(place);
  count_ = std::min(kRowsMax, buffer_.size() / stride_);
  if (count_ == 0) return;  // read() says so
  start();
  queue_.pump();
}

void RowReader::settle() {
  while (out_ > 0) queue_.wait();
}

// What is checked with the byte at `offset`, where that fits into the buffer.
sys::CheckedRanges::Unit RowReader::unit_of(const sys::File& file, uint64_t offset) const {
  sys::CheckedRanges::Unit unit{offset, 0};
  if (checks_ != nullptr) unit = checks_->unit_of(offset);
  if (unit.bytes + 2 * file.alignment() > buffer_.size()) unit.bytes = 0;
  return unit;
}

size_t RowReader::slot_bytes(const MatrixPlace& place) const {
  uint64_t bytes = place.info.row_bytes;
  size_t align = 1;
  for (const MatrixPlace::Piece& piece : place.pieces) {
    bytes = std::max(bytes, unit_of(*piece.file, piece.offset).bytes);
    align = std::max<size_t>(align, piece.file->alignment());
  }
  return (bytes + 2 * align + kPage - 1) / kPage * kPage;
}

void RowReader::start() {
  for (; started_ < rows_.size() && started_ - given_ < count_; ++started_) {
    const int64_t row = rows_[started_];
    CHECK(row >= 0 && row < place_->info.rows);
    int64_t first = 0;
    const MatrixPlace::Piece* piece = place_->pieces.data();
    for (; row >= first + piece->rows; ++piece) first += piece->rows;
    const uint64_t offset = piece->offset + static_cast<uint64_t>(row - first) * place_->info.row_bytes;
    const sys::CheckedRanges::Unit unit = unit_of(*piece->file, offset);
    std::byte* dst = buffer_.data() + started_ % count_ * stride_;
    io::Read read = unit.bytes > 0 ? superset(*piece->file, unit.offset, unit.bytes, dst)
                                   : superset(*piece->file, offset, place_->info.row_bytes, dst);
    read.tag = started_ % count_;
    if (!queue_.push(*this, read, IoQueue::Priority::kUrgent)) return;
    slot(started_) = {.read = read, .lead = static_cast<size_t>(offset - read.offset), .unit = unit, .out = true};
    ++out_;
  }
}

bool RowReader::intact(const Slot& s) const {
  if (s.unit.bytes == 0) return true;
  return !checks_->first_damaged(s.read.dst + (s.unit.offset - s.read.offset), s.unit.offset, s.unit.bytes);
}

void RowReader::on_read(const io::Read& read, const io::Done& done) {
  Slot& finished = slots_[read.tag];
  finished.damaged = done.error == 0 && !intact(finished);
  const bool bad = done.error != 0 || finished.damaged;
  if (bad && !finished.again && queue_.push(*this, read, IoQueue::Priority::kUrgent)) {
    finished.again = true;  // some errors pass
    return;
  }
  finished.error = done.error;
  finished.out = false;
  --out_;
}

Status RowReader::failure(const Slot& s) const {
  if (s.damaged) return damaged_matrix(s.read.file->path(), place_->name, s.unit.offset);
  return io::read_failure(s.read, {.tag = 0, .error = s.error}).with("tensor " + place_->name);
}

Status RowReader::read(const MatrixPlace& place, int64_t row, std::byte* dst) {
  const auto single = static_cast<int32_t>(row);
  const bool expected = place_ == &place && given_ < rows_.size() && rows_[given_] == row;
  if (!expected) expect(place, std::span(&single, 1));
  if (count_ == 0) {
    rows_ = {};
    return Status(Code::kNoMemory, place.name + ": no memory for an embedding row");
  }
  while (started_ == given_) {  // the queue was full
    queue_.wait();
    start();
  }
  const Slot& next = slot(given_);
  while (next.out) queue_.wait();
  const bool good = next.error == 0 && !next.damaged;
  Status status = good ? ok_status() : failure(next);
  if (good) std::memcpy(dst, next.read.dst + next.lead, place.info.row_bytes);
  ++given_;
  if (!expected || !good) {
    rows_ = {};
  } else {
    start();
  }
  return status;
}

}  // namespace stoke::pipeline
