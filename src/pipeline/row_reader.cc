#include "pipeline/row_reader.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "pipeline/superset.h"

namespace stoke::pipeline {
namespace {

constexpr size_t kPage = 4096;

size_t slot_bytes(const MatrixPlace& place) {
  size_t align = 1;
  for (const MatrixPlace::Piece& piece : place.pieces) align = std::max<size_t>(align, piece.file->alignment());
  return (place.info.row_bytes + 2 * align + kPage - 1) / kPage * kPage;
}

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

void RowReader::start() {
  for (; started_ < rows_.size() && started_ - given_ < count_; ++started_) {
    const int64_t row = rows_[started_];
    CHECK(row >= 0 && row < place_->info.rows);
    Slot& next = slot(started_);
    int64_t first = 0;
    const MatrixPlace::Piece* piece = place_->pieces.data();
    for (; row >= first + piece->rows; ++piece) first += piece->rows;
    const uint64_t offset = piece->offset + static_cast<uint64_t>(row - first) * place_->info.row_bytes;
    io::Read read =
        superset(*piece->file, offset, place_->info.row_bytes, buffer_.data() + started_ % count_ * stride_);
    read.tag = started_ % count_;
    if (!queue_.push(*this, read, IoQueue::Priority::kUrgent)) return;
    next = {.read = read, .lead = static_cast<size_t>(offset - read.offset), .out = true};
    ++out_;
  }
}

void RowReader::on_read(const io::Read& read, const io::Done& done) {
  Slot& finished = slots_[read.tag];
  if (!read.file->direct()) read.file->drop_cached(read.offset, read.bytes);
  if (done.error != 0 && !finished.again && queue_.push(*this, read, IoQueue::Priority::kUrgent)) {
    finished.again = true;  // some errors pass
    return;
  }
  finished.error = done.error;
  finished.out = false;
  --out_;
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
  Slot& next = slot(given_);
  while (next.out) queue_.wait();
  ++given_;
  if (next.error == 0) {
    std::memcpy(dst, next.read.dst + next.lead, place.info.row_bytes);
    start();
  }
  if (!expected || next.error != 0) rows_ = {};
  if (next.error == 0) return ok_status();
  return io::read_failure(next.read, {.tag = 0, .error = next.error}).with("tensor " + place.name);
}

}  // namespace stoke::pipeline
