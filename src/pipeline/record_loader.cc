#include "pipeline/record_loader.h"

#include <algorithm>
#include <utility>

namespace stoke::pipeline {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPieceBytes = 256 << 10;  // reaches the disk's full rate with several in flight (docs/reads.md)
constexpr int32_t kPieces = 16;

}  // namespace

RecordLoader::RecordLoader(IoQueue& queue, uint32_t gap_bytes, sys::Memory memory, size_t buffer_bytes)
    : queue_(&queue), gap_bytes_(gap_bytes), memory_(std::move(memory)), buffer_bytes_(buffer_bytes), pieces_(kPieces) {
  for (int32_t i = kPieces; i > 0; --i) free_.push_back(i - 1);
}

Result<RecordLoader> RecordLoader::create(IoQueue& queue, uint32_t gap_bytes, size_t record_bytes_max) {
  const size_t buffer = (std::max<size_t>(kPieceBytes, record_bytes_max) + 3 * kPage - 1) / kPage * kPage;
  STOKE_ASSIGN(sys::Memory memory, sys::Memory::map(kPieces * buffer));
  return RecordLoader(queue, gap_bytes, std::move(memory), buffer);
}

Status RecordLoader::load(const NeuronTable& table, std::span<const int32_t> neurons, const Deliver& deliver,
                          const CancelFlag* cancel) {
  table_ = &table;
  neurons_ = neurons;
  deliver_ = &deliver;
  status_ = ok_status();
  for (size_t next = 0; out_ > 0 || (status_.ok() && (next < neurons.size() || !again_.empty()));) {
    if (status_.ok() && cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      status_ = Status(Code::kCancelled, "cancelled");
    }
    while (status_.ok() && !again_.empty()) {
      push(again_.back());
      again_.pop_back();
    }
    while (status_.ok() && next < neurons.size() && !free_.empty()) next = start(next);
    if (out_ > 0) queue_->wait();
  }
  return status_;
}

// Asks for neurons from number `first` on, as far as a buffer reaches. Returns the number of the next.
size_t RecordLoader::start(size_t first) {
  const size_t bytes = table_->record_bytes();
  const uint64_t begin = table_->records.offset_of(neurons_[first]);
  uint64_t end = begin + bytes;
  size_t next = first + 1;
  for (; next < neurons_.size(); ++next) {
    const uint64_t at = table_->records.offset_of(neurons_[next]);
    if (at - end > gap_bytes_ || at + bytes - begin > kPieceBytes) break;
    end = at + bytes;
  }
  const int32_t number = free_.back();
  free_.pop_back();
  const uint64_t align = std::max<uint32_t>(table_->file->alignment(), 1);
  const uint64_t from = begin / align * align;
  const uint64_t to = (end + align - 1) / align * align;
  pieces_[static_cast<size_t>(number)] = {.first = first,
                                          .end = next,
                                          .again = false,
                                          .read = {.file = table_->file,
                                                   .offset = from,
                                                   .bytes = static_cast<uint32_t>(to - from),
                                                   .at_least = static_cast<uint32_t>(end - from),
                                                   .dst = memory_.data() + static_cast<size_t>(number) * buffer_bytes_,
                                                   .tag = static_cast<uint64_t>(number)}};
  push(number);
  return next;
}

void RecordLoader::push(int32_t number) {
  const io::Read& read = pieces_[static_cast<size_t>(number)].read;
  while (!queue_->push(*this, read, IoQueue::Priority::kBackground)) queue_->wait();
  ++out_;
}

void RecordLoader::on_read(const io::Read& read, const io::Done& done) {
  --out_;
  const auto number = static_cast<int32_t>(read.tag);
  Piece& piece = pieces_[read.tag];
  const int64_t damaged = done.error == 0 ? first_damaged(piece) : neurons_[piece.first];
  if (damaged >= 0 && !piece.again) {
    piece.again = true;
    again_.push_back(number);
    return;
  }
  free_.push_back(number);
  if (damaged >= 0) {
    if (status_.ok()) status_ = record_failure(*table_, damaged, done.error);
    return;
  }
  for (size_t i = piece.first; i < piece.end; ++i) (*deliver_)(neurons_[i], record(piece, neurons_[i]));
}

const std::byte* RecordLoader::record(const Piece& piece, int64_t neuron) const {
  return piece.read.dst + (table_->records.offset_of(neuron) - piece.read.offset);
}

// The first neuron whose record does not have its checksum, or -1.
int64_t RecordLoader::first_damaged(const Piece& piece) const {
  for (size_t i = piece.first; i < piece.end; ++i) {
    const int64_t neuron = neurons_[i];
    if (!table_->intact(neuron, record(piece, neuron))) return neuron;
  }
  return -1;
}

}  // namespace stoke::pipeline
