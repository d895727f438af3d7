#include "pipeline/record_fetcher.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"

namespace stoke::pipeline {
namespace {

// What holds a record: a slot of the cache (its number), a transient place (kTransient - its number), or nobody here.
constexpr int32_t kNoPlace = -1;
constexpr int32_t kTransient = -2;
constexpr size_t kPage = 4096;          // the largest alignment that files ask for
constexpr size_t kDirectFetches = 256;  // reads straight into slots that may be queued at a time

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
uint64_t round_down(uint64_t n, uint64_t unit) { return n / unit * unit; }

size_t bounce_bytes(const FetchOptions& o) {
  return round_up(std::max<size_t>(o.read_bytes_max, o.record_bytes_max) + 2 * kPage, kPage);
}
size_t transient_bytes(const FetchOptions& o) {
  return round_up(o.record_bytes_max, 64) * static_cast<size_t>(o.transients);
}

}  // namespace

size_t RecordFetcher::bytes(const FetchOptions& o) {
  return round_up(transient_bytes(o), kPage) + static_cast<size_t>(o.bounces) * bounce_bytes(o);
}

RecordFetcher::RecordFetcher(const FetchOptions& options, cache::UnitCache* cache, IoQueue& queue, LayerBoard& board,
                             size_t jobs)
    : options_(options), cache_(cache), queue_(queue), board_(board), bounce_bytes_(bounce_bytes(options)) {
  Result<sys::Memory> memory = sys::Memory::map(bytes(options));
  CHECK(options.transients >= kClusterNeurons);
  if (!memory.ok()) throw std::bad_alloc();  // as the vectors beside it
  memory_ = std::move(*memory);
  for (int32_t i = options.transients; i > 0; --i) free_transients_.push_back(i - 1);
  for (int32_t i = options.bounces; i > 0; --i) free_bounces_.push_back(i - 1);
  fetches_.resize(static_cast<size_t>(options.bounces) + kDirectFetches);
  for (size_t i = fetches_.size(); i > 0; --i) free_fetches_.push_back(static_cast<int32_t>(i - 1));
  again_.reserve(fetches_.size());
  waiting_.reserve(jobs);
}

void RecordFetcher::begin(const NeuronTable& table, std::span<ClusterJob> jobs) {
  CHECK(out_ == 0);
  table_ = &table;
  jobs_ = jobs;
  waiting_.clear();
  admitted_ = 0;
  looked_up_ = issued_ = misses_ = 0;
  missed_ = blocked_ = false;
  status_ = ok_status();
}

void RecordFetcher::advance() {
  if (blocked_ || !status_.ok() || !push_again()) return;
  while (admitted_ < waiting_.size()) {
    const int32_t number = waiting_[admitted_];
    ClusterJob& job = jobs_[static_cast<size_t>(number)];
    if (!look_up(job) || !issue(number, job)) {
      // Others may hold the queue's places, and of that nobody tells: then the next call tries again.
      blocked_ = queue_.room(IoQueue::Priority::kUrgent) > 0;
      return;
    }
    const bool cached = misses_ == 0;
    ++admitted_;
    looked_up_ = issued_ = misses_ = 0;
    if (job.missing == 0) (cached ? board_.ready_cached : board_.ready_read).push(number);
  }
}

// Gives every active neuron its record or a place to read it into. False where there is no place now.
bool RecordFetcher::look_up(ClusterJob& job) {
  for (; looked_up_ < job.active; ++looked_up_) {
    const int32_t i = looked_up_;
    if (!missed_) {
      ++counts_.lookups;
      job.places[i] = kNoPlace;
      job.fresh[i] = 0;
      job.records[i] = table_->hot_record(job.neuron(i));
      if (job.records[i] != nullptr) {
        ++counts_.hot_hits;
        continue;
      }
      const cache::SlotId slot =
          options_.use_cache ? cache_->find(unit(job.neuron(i)), job.firings(job.index[i])) : cache::SlotId();
      if (slot.valid()) {
        ++counts_.cache_hits;
        job.places[i] = slot.index;
        job.records[i] = cache_->data(slot);
        continue;
      }
    }
    missed_ = !place_miss(job, i);
    if (missed_) return false;
    ++job.missing;
    ++misses_;
  }
  return true;
}

bool RecordFetcher::place_miss(ClusterJob& job, int32_t i) {
  if (options_.use_cache) {
    const cache::SlotId slot = cache_->reserve(unit(job.neuron(i)), false);
    if (slot.valid()) {
      job.places[i] = slot.index;
      return true;
    }
  }
  if (free_transients_.empty()) return false;
  ++counts_.refused;
  job.places[i] = kTransient - free_transients_.back();
  free_transients_.pop_back();
  return true;
}

// Pushes the reads of the job's misses. False where there is no room now.
bool RecordFetcher::issue(int32_t number, ClusterJob& job) {
  const size_t record = table_->record_bytes();
  while (issued_ < job.active) {
    if (job.records[issued_] != nullptr || job.places[issued_] == kNoPlace) {
      ++issued_;
      continue;
    }
    int32_t last = issued_;
    for (int32_t i = issued_ + 1; i < job.active; ++i) {
      const auto gap = static_cast<size_t>(job.neuron(i) - job.neuron(last) - 1) * record;
      const auto all = static_cast<size_t>(job.neuron(i) - job.neuron(issued_) + 1) * record;
      if (gap > options_.gap_bytes || all > options_.read_bytes_max) break;
      if (job.records[i] == nullptr) last = i;
    }
    if (!start(number, job, issued_, last, 0)) return false;
    issued_ = last + 1;
  }
  return true;
}

bool RecordFetcher::start(int32_t number, const ClusterJob& job, int32_t first, int32_t last, int attempts) {
  const uint64_t align = std::max<uint32_t>(table_->file->alignment(), 1);
  const uint64_t begin = table_->records.offset_of(job.neuron(first));
  const uint64_t end = table_->records.offset_of(job.neuron(last)) + table_->record_bytes();
  const uint64_t from = round_down(begin, align);
  const uint64_t to = round_down(end + align - 1, align);
  std::byte* dst = destination(job.places[first]);
  const bool direct = first == last && from == begin && to == end && reinterpret_cast<uintptr_t>(dst) % align == 0;
  if (free_fetches_.empty() || (!direct && free_bounces_.empty())) return false;
  const int32_t id = free_fetches_.back();
  Fetch& fetch = fetches_[static_cast<size_t>(id)];
  fetch = {
      .job = number, .first = first, .last = last, .bounce = direct ? -1 : free_bounces_.back(), .attempts = attempts};
  if (!direct) {
    dst =
        memory_.data() + round_up(transient_bytes(options_), kPage) + static_cast<size_t>(fetch.bounce) * bounce_bytes_;
  }
  fetch.read = {.file = table_->file,
                .offset = from,
                .bytes = static_cast<uint32_t>(to - from),
                .at_least = static_cast<uint32_t>(end - from),
                .dst = dst,
                .tag = static_cast<uint64_t>(id)};
  if (!queue_.push(*this, fetch.read, IoQueue::Priority::kUrgent)) return false;
  free_fetches_.pop_back();
  if (!direct) free_bounces_.pop_back();
  ++out_;
  ++counts_.reads;
  counts_.read_bytes += fetch.read.bytes;
  return true;
}

bool RecordFetcher::push_again() {
  while (!again_.empty()) {
    if (!queue_.push(*this, fetches_[static_cast<size_t>(again_.back())].read, IoQueue::Priority::kUrgent))
      return false;
    again_.pop_back();
    ++counts_.reads;
    ++counts_.reread;
  }
  return true;
}

void RecordFetcher::on_read(const io::Read& read, const io::Done& done) {
  const auto id = static_cast<int32_t>(read.tag);
  Fetch& fetch = fetches_[read.tag];
  ClusterJob& job = jobs_[static_cast<size_t>(fetch.job)];
  blocked_ = false;
  bool good = done.error == 0;
  for (int32_t i = fetch.first; good && fetch.attempts > 0 && i <= fetch.last; ++i) {
    if (job.records[i] == nullptr) good = table_->intact(job.neuron(i), source(fetch, job.neuron(i)));
  }
  if (!good && fetch.attempts++ == 0 && status_.ok()) {
    again_.push_back(id);
    return;
  }
  if (good) {
    deliver(fetch);
  } else {
    fail(fetch, done);
  }
  retire(id);
  const bool complete = admitted_ == waiting_.size() || waiting_[admitted_] != fetch.job;
  if (good && job.missing == 0 && complete) board_.ready_read.push(fetch.job);
}

// The records of a read that arrived whole are where they belong, and the job may use them.
void RecordFetcher::deliver(const Fetch& fetch) {
  ClusterJob& job = jobs_[static_cast<size_t>(fetch.job)];
  for (int32_t i = fetch.first; i <= fetch.last; ++i) {
    if (job.records[i] != nullptr) continue;
    std::byte* to = destination(job.places[i]);
    if (fetch.bounce >= 0) std::memcpy(to, source(fetch, job.neuron(i)), table_->record_bytes());
    if (job.places[i] >= 0) cache_->commit({job.places[i]}, true);
    job.records[i] = to;
    job.fresh[i] = fetch.attempts == 0 ? 1 : 0;
    --job.missing;
  }
}

const std::byte* RecordFetcher::source(const Fetch& fetch, int64_t neuron) const {
  return fetch.read.dst + (table_->records.offset_of(neuron) - fetch.read.offset);
}

bool RecordFetcher::check_fresh(const NeuronTable& table, ClusterJob& job) {
  bool good = true;
  for (int32_t i = 0; i < job.active; ++i) {
    if (job.fresh[i] == 0) continue;
    const bool intact = table.intact(job.neuron(i), job.records[i]);
    job.fresh[i] = intact ? 0 : 1;
    good &= intact;
  }
  return good;
}

// What was damaged leaves the cache and comes anew, so that nobody ever finds it there.
void RecordFetcher::read_again(int32_t number) {
  ClusterJob& job = jobs_[static_cast<size_t>(number)];
  job.damaged = false;
  for (int32_t i = 0; i < job.active; ++i) {
    if (job.fresh[i] == 0) continue;
    job.fresh[i] = 0;
    job.records[i] = nullptr;
    ++job.missing;
    if (job.places[i] < 0) continue;
    cache_->release({job.places[i]});
    cache_->drop(unit(job.neuron(i)));
    const cache::SlotId slot = cache_->reserve(unit(job.neuron(i)), false);
    CHECK(slot.valid());  // the one that has just become free
    job.places[i] = slot.index;
  }
  for (int32_t i = 0; i < job.active; ++i) {
    if (job.records[i] != nullptr) continue;
    ++counts_.reread;
    while (!start(number, job, i, i, 1)) queue_.wait();
  }
}

std::byte* RecordFetcher::destination(int32_t place) const {
  if (place >= 0) return cache_->data({place});
  return memory_.data() + static_cast<size_t>(kTransient - place) * round_up(options_.record_bytes_max, 64);
}

void RecordFetcher::retire(int32_t id) {
  if (fetches_[static_cast<size_t>(id)].bounce >= 0) free_bounces_.push_back(fetches_[static_cast<size_t>(id)].bounce);
  free_fetches_.push_back(id);
  --out_;
}

void RecordFetcher::free_place(int32_t place, bool arrived) {
  if (place <= kTransient) {
    free_transients_.push_back(kTransient - place);
  } else if (place >= 0 && arrived) {
    cache_->release({place});
  } else if (place >= 0) {
    cache_->abandon({place});
  }
}

// Of a job that is not computed. A record that nobody has checked may still be damaged: it does not stay in the cache.
void RecordFetcher::leave(ClusterJob& job, int32_t i) {
  const bool arrived = job.records[i] != nullptr;
  free_place(job.places[i], arrived);
  if (arrived && job.fresh[i] != 0 && job.places[i] >= 0) cache_->drop(unit(job.neuron(i)));
}

void RecordFetcher::finish(int32_t number) {
  ClusterJob& job = jobs_[static_cast<size_t>(number)];
  for (int32_t i = 0; i < job.active; ++i) free_place(job.places[i], true);
  job.active = 0;
  blocked_ = false;
}

void RecordFetcher::abandon() {
  if (status_.ok()) status_ = Status(Code::kCancelled, "the layer was given up");  // nothing is read again
  for (const int32_t id : again_) retire(id);
  again_.clear();
  while (out_ > 0) queue_.wait();
  for (size_t w = 0; w < waiting_.size() && w <= admitted_; ++w) {
    ClusterJob& job = jobs_[static_cast<size_t>(waiting_[w])];
    const int32_t placed = w < admitted_ ? job.active : looked_up_;
    for (int32_t i = 0; i < placed; ++i) leave(job, i);
    job.active = 0;
  }
  waiting_.clear();
  admitted_ = 0;
}

void RecordFetcher::fail(const Fetch& fetch, const io::Done& done) {
  if (!status_.ok()) return;
  const ClusterJob& job = jobs_[static_cast<size_t>(fetch.job)];
  int64_t neuron = job.neuron(fetch.first);
  for (int32_t i = fetch.first; done.error == 0 && i <= fetch.last; ++i) {
    neuron = job.neuron(i);
    if (job.records[i] == nullptr && !table_->intact(neuron, source(fetch, neuron))) break;
  }
  status_ = record_failure(*table_, neuron, done.error);
}

}  // namespace stoke::pipeline
