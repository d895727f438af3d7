#include "pipeline/io_queue.h"

#include "base/check.h"

namespace stoke::pipeline {

IoQueue::IoQueue(io::Reader& reader, const sys::Clock& clock, size_t capacity)
    : reader_(reader), clock_(clock), done_(static_cast<size_t>(reader.depth())) {
  urgent_.items.resize(capacity);
  background_.items.resize(capacity);
  flying_.resize(static_cast<size_t>(reader.depth()));
  for (size_t tag = flying_.size(); tag > 0; --tag) unused_.push_back(static_cast<uint32_t>(tag - 1));
}

size_t IoQueue::room(Priority priority) const {
  const Ring& ring = priority == Priority::kUrgent ? urgent_ : background_;
  return ring.items.size() - ring.size;
}

size_t IoQueue::queued() const { return urgent_.size + background_.size; }

bool IoQueue::push(ReadClient& client, const io::Read& read, Priority priority) {
  Ring& ring = priority == Priority::kUrgent ? urgent_ : background_;
  if (ring.size == ring.items.size()) return false;
  ring.items[(ring.head + ring.size) % ring.items.size()] = {.client = &client, .read = read};
  ++ring.size;
  return true;
}

IoQueue::Request IoQueue::take(Ring& ring) {
  const Request request = ring.items[ring.head];
  ring.head = (ring.head + 1) % ring.items.size();
  --ring.size;
  return request;
}

// Whose request may start now; null: nobody's.
IoQueue::Ring* IoQueue::next() {
  if (unused_.empty() || bytes_in_flight_ >= kBytesInFlight) return nullptr;
  if (urgent_.size > 0) return &urgent_;
  if (background_.size == 0 || (background_held_ && in_flight_ > 0)) return nullptr;
  return &background_;
}

void IoQueue::start() {
  bool any = false;
  for (Ring* ring = next(); ring != nullptr; ring = next()) {
    const uint32_t tag = unused_.back();
    unused_.pop_back();
    flying_[tag] = take(*ring);
    if (trace_ != nullptr) flying_[tag].submitted_ns = trace_->now_ns();
    io::Read read = flying_[tag].read;
    read.tag = tag;
    reader_.push(read);
    ++in_flight_;
    bytes_in_flight_ += read.bytes;
    any = true;
  }
  if (any) reader_.submit();
}

size_t IoQueue::deliver(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const io::Done done = done_[i];
    const Request request = flying_[done.tag];
    unused_.push_back(static_cast<uint32_t>(done.tag));
    --in_flight_;
    bytes_in_flight_ -= request.read.bytes;
    if (trace_ != nullptr) {
      trace_->add_read(request.read.file, request.read.offset, done.bytes, request.submitted_ns);
    }
    if (request.read.file != nullptr) request.read.file->drop_read(request.read.offset, request.read.bytes);
    request.client->on_read(request.read, {.tag = request.read.tag, .error = done.error, .bytes = done.bytes});
  }
  return count;
}

size_t IoQueue::pump() {
  if (idle()) return 0;
  start();
  if (in_flight_ == 0) return 0;
  const size_t delivered = deliver(reader_.poll(done_));
  if (delivered > 0) start();
  return delivered;
}

size_t IoQueue::wait() {
  if (idle()) return 0;
  start();
  const size_t at_hand = deliver(reader_.poll(done_));
  if (at_hand > 0) {
    start();
    return at_hand;
  }
  const sys::TraceSpan span(trace_, 0, sys::TraceKind::kDiskWait);
  const int64_t before = clock_.now_ns();
  const size_t count = reader_.wait(done_);
  stall_ns_ += clock_.now_ns() - before;
  const size_t delivered = deliver(count);
  start();
  return delivered;
}

}  // namespace stoke::pipeline
