#include "pipeline/cluster_ring.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"

namespace stoke::pipeline {
namespace {

constexpr uint64_t kPage = 4096;
// Sequential reads reach the disk's full rate from about 32 KiB on; larger ones cost less processor time.
constexpr uint64_t kPieceBytes = 256 << 10;
// More runs than this are read as one: requests would cost more than the bytes they leave out.
constexpr size_t kRunsMax = 16;
constexpr int64_t kCheckGrain = 32;

uint64_t round_down(uint64_t n, uint64_t unit) { return n / unit * unit; }
uint64_t round_up(uint64_t n, uint64_t unit) { return round_down(n + unit - 1, unit); }

size_t buffer_bytes(std::span<const NeuronTable> tables) {
  size_t most = 0;
  for (const NeuronTable& t : tables) {
    if (!t.all_hot()) most = std::max(most, t.record_bytes());
  }
  return most == 0 ? 0 : round_up(most * kClusterNeurons + 2 * kPage, kPage);
}

size_t networks(std::span<const NeuronTable> tables) {
  int64_t most = 1;
  for (const NeuronTable& t : tables) most = std::max(most, t.records.experts);
  return static_cast<size_t>(most) + 2;
}

}  // namespace

ClusterRing::ClusterRing(std::span<const NeuronTable> tables, cache::UnitCache* cache, IoQueue* queue,
                         sys::ThreadPool& threads, const Options& options)
    : cache_(cache), queue_(queue), threads_(threads), options_(options) {
  CHECK(options.clusters >= SparseStream::kWaveClusters);
  buffers_.resize(static_cast<size_t>(options.clusters));
  expected_.reserve(networks(tables));
  runs_.resize(kClusterNeurons);
  damaged_.resize(kClusterNeurons);
  const size_t each = buffer_bytes(tables);
  if (each == 0) return;
  CHECK(queue != nullptr);
  Result<sys::Memory> memory = sys::Memory::map(bytes(tables, options));
  if (!memory.ok()) throw std::bad_alloc();  // as the vectors beside it
  memory_ = std::move(*memory);
  for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].data = memory_.data() + i * each;
}

ClusterRing::~ClusterRing() {
  while (out_ > 0) queue_->wait();
}

size_t ClusterRing::bytes(std::span<const NeuronTable> tables, const Options& options) {
  return static_cast<size_t>(options.clusters) * buffer_bytes(tables);
}

void ClusterRing::expect(const NeuronTable& table, int64_t first, int64_t count) {
  expected_.push_back({&table, first, first + count});
  fill();
}

bool ClusterRing::expects(const NeuronTable& table, int64_t first) const {
  if (acquired_ < started_) {
    const Buffer& next = buffers_[static_cast<size_t>(acquired_) % buffers_.size()];
    return next.table == &table && next.first == first;
  }
  return !expected_.empty() && expected_[0].table == &table && expected_[0].next == first;
}

void ClusterRing::flush() {
  CHECK(released_ == acquired_);
  while (out_ > 0) queue_->wait();
  released_ = acquired_ = started_ = 0;
  expected_.clear();
}

void ClusterRing::poll() {
  if (queue_ != nullptr) queue_->pump();
  fill();
}

// Starts clusters as long as there are buffers and room in the queue.
void ClusterRing::fill() {
  while (start_next(false)) {
  }
}

bool ClusterRing::start_next(bool must) {
  if (expected_.empty() || started_ - released_ == static_cast<int64_t>(buffers_.size())) return false;
  Expected& next = expected_[0];
  const int64_t count = std::min(kClusterNeurons, next.end - next.next);
  if (!start(*next.table, next.next, count, must)) return false;
  next.next += count;
  if (next.next == next.end) expected_.erase(expected_.begin());
  return true;
}

// False where the queue has no room now. What must come is urgent, and waits for room.
bool ClusterRing::start(const NeuronTable& table, int64_t first, int64_t count, bool must) {
  Buffer& buffer = at(started_);
  const auto number = static_cast<int32_t>(static_cast<size_t>(started_) % buffers_.size());
  buffer = {.table = &table, .first = first, .count = count, .data = buffer.data};
  const std::byte* hot = table.hot_record(first);
  if (hot != nullptr && table.hot_record(first + count - 1) != nullptr) {
    buffer.hot = true;
    buffer.records = hot;
    ++started_;
    return true;
  }
  const uint64_t begin = table.records.offset_of(first);
  buffer.origin = round_down(begin, kPage);
  buffer.records = buffer.data + (begin - buffer.origin);
  // The whole cluster in pieces must have room, whatever is left out then.
  const size_t most = static_cast<size_t>(count) * table.record_bytes() / kPieceBytes + 2 + kRunsMax;
  if (!must && queue_->room(IoQueue::Priority::kBackground) < most) return false;
  const size_t runs = find_runs(buffer);
  const auto priority = must ? IoQueue::Priority::kUrgent : IoQueue::Priority::kBackground;
  for (size_t r = 0; r < runs; ++r) push_run(buffer, number, runs_[r], priority);
  ++started_;
  return true;
}

// Copies what memory holds; the stretches of the file that are to be read lie in runs_ afterwards.
size_t ClusterRing::find_runs(Buffer& buffer) {
  const RecordTable& records = buffer.table->records;
  size_t runs = 0;
  for (int64_t i = 0; i < buffer.count; ++i) {
    if (copy_cached(buffer, i)) continue;
    const uint64_t begin = records.offset_of(buffer.first + i);
    if (runs == 0 || begin - runs_[runs - 1].end > options_.gap_bytes) runs_[runs++].begin = begin;
    runs_[runs - 1].end = begin + records.record.record_bytes;
  }
  if (runs <= kRunsMax) return runs;
  runs_[0].end = runs_[runs - 1].end;
  return 1;
}

bool ClusterRing::copy_cached(Buffer& buffer, int64_t i) {
  const size_t bytes = buffer.table->record_bytes();
  if (const std::byte* hot = buffer.table->hot_record(buffer.first + i); hot != nullptr) {
    std::memcpy(place(buffer, i), hot, bytes);
    return true;
  }
  if (cache_ == nullptr || !options_.use_cache) return false;
  const cache::UnitId unit{static_cast<int32_t>(buffer.table->first_unit + buffer.first + i)};
  if (cache_->state(unit) != cache::UnitCache::State::kReady) return false;
  const cache::SlotId slot = cache_->find(unit, 0);  // uses are counted when they are known
  std::memcpy(place(buffer, i), cache_->data(slot), bytes);
  cache_->release(slot);
  return true;
}

void ClusterRing::push_run(Buffer& buffer, int32_t number, const Run& run, IoQueue::Priority priority) {
  const sys::File& file = *buffer.table->file;
  const uint64_t align = std::max<uint32_t>(file.alignment(), 1);
  const uint64_t stop = round_up(run.end, align);
  for (uint64_t from = round_down(run.begin, align); from < stop; from += kPieceBytes) {
    const uint64_t to = std::min(from + kPieceBytes, stop);
    const io::Read read{.file = &file,
                        .offset = from,
                        .bytes = static_cast<uint32_t>(to - from),
                        .at_least = static_cast<uint32_t>(std::min(to, run.end) - from),
                        .dst = buffer.data + (from - buffer.origin),
                        .tag = static_cast<uint64_t>(number)};
    while (!queue_->push(*this, read, priority)) queue_->wait();
    ++buffer.reads;
    ++out_;
    ++reads_;
    read_bytes_ += read.bytes;
  }
}

void ClusterRing::on_read(const io::Read& read, const io::Done& done) {
  Buffer& buffer = buffers_[read.tag];
  --buffer.reads;
  --out_;
  if (done.error != 0) buffer.error = done.error;
}

Result<const std::byte*> ClusterRing::acquire(const NeuronTable& table, int64_t first, int64_t count) {
  fill();
  if (acquired_ == started_) start_next(true);
  CHECK(expects(table, first) && acquired_ < started_);
  Buffer& buffer = at(acquired_);
  CHECK(buffer.count == count);
  const auto number = static_cast<int32_t>(static_cast<size_t>(acquired_) % buffers_.size());
  if (!buffer.hot) STOKE_TRY(complete(buffer, number));
  ++acquired_;
  return buffer.records;
}

// Waits for the reads and checks the records; reads what is wrong once more.
Status ClusterRing::complete(Buffer& buffer, int32_t number) {
  for (int attempt = 0;; ++attempt) {
    while (buffer.reads > 0) {
      queue_->wait();
      fill();
    }
    const int64_t damaged = buffer.error != 0 ? 0 : first_damaged(buffer);
    if (damaged < 0) return ok_status();
    if (attempt == 1) return failure(buffer, damaged);
    buffer.error = 0;
    const RecordTable& records = buffer.table->records;
    push_run(buffer, number, {records.offset_of(buffer.first), records.offset_of(buffer.first + buffer.count)},
             IoQueue::Priority::kUrgent);
  }
}

// The first record whose checksum does not match, or -1.
int64_t ClusterRing::first_damaged(const Buffer& buffer) {
  const NeuronTable& table = *buffer.table;
  if (table.checksums.empty()) return -1;
  threads_.parallel_for(buffer.count, kCheckGrain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      damaged_[static_cast<size_t>(i)] = !table.intact(buffer.first + i, place(buffer, i));
    }
  });
  const auto end = damaged_.begin() + buffer.count;
  const auto found = std::find(damaged_.begin(), end, 1);
  return found == end ? -1 : found - damaged_.begin();
}

Status ClusterRing::failure(const Buffer& buffer, int64_t damaged) const {
  return record_failure(*buffer.table, buffer.first + damaged, buffer.error,
                        "the file ends before or within its cluster", "reading its cluster failed, twice");
}

void ClusterRing::release(const NeuronTable& table, int64_t first, int64_t, const int32_t* uses) {
  Buffer& buffer = at(released_);
  CHECK(released_ < acquired_ && buffer.table == &table && buffer.first == first);
  feed_cache(buffer, uses);
  ++released_;
  fill();
}

void ClusterRing::feed_cache(const Buffer& buffer, const int32_t* uses) {
  if (cache_ == nullptr || !options_.use_cache || buffer.hot) return;
  const NeuronTable& table = *buffer.table;
  for (int64_t i = 0; i < buffer.count; ++i) {
    if (uses[i] == 0 || table.hot_record(buffer.first + i) != nullptr) continue;
    const cache::UnitId unit{static_cast<int32_t>(table.first_unit + buffer.first + i)};
    cache::SlotId slot = cache_->find(unit, uses[i]);
    if (slot.valid()) {
      cache_->release(slot);
      continue;
    }
    if (cache_->state(unit) != cache::UnitCache::State::kFree) continue;
    slot = cache_->reserve(unit, false);
    if (!slot.valid()) continue;
    std::memcpy(cache_->data(slot), place(buffer, i), table.record_bytes());
    cache_->commit(slot, false);
  }
}

}  // namespace stoke::pipeline
