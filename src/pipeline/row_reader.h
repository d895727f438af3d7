// Single rows of a matrix that is not in memory (embeddings): several reads at once, given out one by one, in order.
//
// Thread role: the control thread. Ownership: its buffers; queue and files outlive it. Nothing is allocated after
// construction. Errors: a read that failed, or whose bytes did not have their checksum, twice, from read(), naming file
// and offset. Where checksums are known, the rows that share a row's own are read with it. Reads in flight write into
// the buffers: the queue must be idle before the reader goes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "pipeline/io_queue.h"
#include "pipeline/unit_table.h"
#include "sys/checked_ranges.h"
#include "sys/memory.h"

namespace stoke::pipeline {

class RowReader final : private ReadClient {
 public:
  static constexpr size_t kBufferBytes = size_t{1} << 18;

  explicit RowReader(IoQueue& queue);
  // Null: nothing is known. They outlive the reader.
  void check_against(const sys::CheckedRanges* checks) { checks_ = checks; }

  // Rows that will be read next, in this order; what was expected before is void. `rows` stays as it is until all of
  // them have been read or others are expected.
  void expect(const MatrixPlace& place, std::span<const int32_t> rows);
  // Copies a row (row_bytes) to dst: the next one that was expected, or any other.
  Status read(const MatrixPlace& place, int64_t row, std::byte* dst);

 private:
  static constexpr size_t kRowsMax = 64;
  struct Slot {
    io::Read read;
    size_t lead = 0;                // of the row in what is read
    sys::CheckedRanges::Unit unit;  // what is checked; no bytes: nothing
    int error = 0;
    bool damaged = false;
    bool out = false;
    bool again = false;
  };
  void on_read(const io::Read& read, const io::Done& done) override;
  void start();
  void settle();
  sys::CheckedRanges::Unit unit_of(const sys::File& file, uint64_t offset) const;
  size_t slot_bytes(const MatrixPlace& place) const;
  bool intact(const Slot& slot) const;
  Status failure(const Slot& slot) const;
  Slot& slot(size_t number) { return slots_[number % count_]; }

  IoQueue& queue_;
  const sys::CheckedRanges* checks_ = nullptr;
  sys::Memory buffer_;
  std::array<Slot, kRowsMax> slots_;
  size_t count_ = 1;  // slots of the matrix at hand
  size_t stride_ = 0;
  const MatrixPlace* place_ = nullptr;
  std::span<const int32_t> rows_;
  size_t started_ = 0;
  size_t given_ = 0;
  int out_ = 0;
};

}  // namespace stoke::pipeline
