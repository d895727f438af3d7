// Brings many records of a layer at once, before the first token: hot ones and what a cache is filled with.
//
// Records that lie near each other come in one read of up to 256 KiB, several in flight; each is held against its
// checksum and handed over. Reads that fail or bring something wrong are made once more.
// Thread role: the control thread, which waits. Ownership: its buffers, for as long as it lives; the queue is the
// caller's. Errors: kIo, kCorrupt, naming layer, neuron, file and offset; kCancelled. Then nothing is in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "pipeline/io_queue.h"
#include "pipeline/neuron_table.h"
#include "stoke/stoke.h"
#include "sys/memory.h"

namespace stoke::pipeline {

class RecordLoader final : private ReadClient {
 public:
  // gap_bytes: what lies between two wanted records and is read along, rather than ask twice.
  // record_bytes_max: of all tables.
  static Result<RecordLoader> create(IoQueue& queue, uint32_t gap_bytes, size_t record_bytes_max);

  // Called for each of the neurons, in any order; the record's bytes are valid for the call.
  using Deliver = std::function<void(int64_t neuron, const std::byte* record)>;
  // neurons: of the table, ascending.
  Status load(const NeuronTable& table, std::span<const int32_t> neurons, const Deliver& deliver,
              const CancelFlag* cancel);

 private:
  struct Piece {
    size_t first = 0;  // of neurons
    size_t end = 0;
    bool again = false;
    io::Read read;
  };
  RecordLoader(IoQueue& queue, uint32_t gap_bytes, sys::Memory memory, size_t buffer_bytes);
  size_t start(size_t first);
  void push(int32_t number);
  void on_read(const io::Read& read, const io::Done& done) override;
  const std::byte* record(const Piece& piece, int64_t neuron) const;
  int64_t first_damaged(const Piece& piece) const;

  IoQueue* queue_;
  uint32_t gap_bytes_;
  sys::Memory memory_;
  size_t buffer_bytes_;
  std::vector<Piece> pieces_;  // one a buffer
  std::vector<int32_t> free_;
  std::vector<int32_t> again_;
  int out_ = 0;
  const NeuronTable* table_ = nullptr;
  std::span<const int32_t> neurons_;
  const Deliver* deliver_ = nullptr;
  Status status_;
};

}  // namespace stoke::pipeline
