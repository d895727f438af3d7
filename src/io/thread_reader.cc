#include "io/thread_reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "base/check.h"
#include "io/progress.h"

namespace stoke::io {

// What the reader's threads and the control thread share; everything but done_count under the mutex.
struct ThreadReader::Shared {
  std::mutex mutex;
  std::condition_variable work;   // submitted became longer, or stopping
  std::condition_variable ended;  // done became non-empty while the control thread waits
  std::vector<Read> submitted;    // a ring: the oldest is taken first
  size_t head = 0;
  size_t queued = 0;
  std::vector<Done> done;
  std::atomic<size_t> done_count{0};  // done.size(), to look at without the mutex
  bool waiting = false;
  bool stopping = false;
  std::vector<std::thread> threads;

  void serve();
  std::optional<Read> next();
  void finish(const Done& result);
};

namespace {

Done read_whole(const Read& read) {
  Progress progress(read);
  for (;;) {
    const ssize_t got = pread(read.file->fd(), progress.dst(), progress.bytes(), static_cast<off_t>(progress.offset()));
    const std::optional<Done> done = progress.advance(got < 0 ? -errno : got);
    if (done) return *done;
  }
}

}  // namespace

std::optional<Read> ThreadReader::Shared::next() {
  std::unique_lock lock(mutex);
  work.wait(lock, [&] { return stopping || queued > 0; });
  if (stopping) return std::nullopt;
  const Read read = submitted[head];
  head = (head + 1) % submitted.size();
  --queued;
  return read;
}

void ThreadReader::Shared::finish(const Done& result) {
  const std::lock_guard lock(mutex);
  done.push_back(result);
  done_count.store(done.size(), std::memory_order_release);
  if (waiting) ended.notify_one();
}

void ThreadReader::Shared::serve() {
  while (const std::optional<Read> read = next()) finish(read_whole(*read));
}

Result<std::unique_ptr<ThreadReader>> ThreadReader::open(int depth, int threads_max) {
  CHECK(depth >= 1 && threads_max >= 1);
  std::unique_ptr<ThreadReader> reader(new ThreadReader(depth));
  Shared& shared = *reader->shared_;
  try {
    for (int i = 0; i < std::min(depth, threads_max); ++i) shared.threads.emplace_back([&shared] { shared.serve(); });
  } catch (const std::system_error& error) {
    // A container may allow few: any one is enough to read with.
    if (shared.threads.empty()) {
      return Status(Code::kUnsupported, fmt::format("threads are refused: {}", error.what()));
    }
  }
  return reader;
}

ThreadReader::ThreadReader(int depth) : depth_(depth), shared_(std::make_unique<Shared>()) {
  const auto count = static_cast<size_t>(depth);
  pushed_.reserve(count);
  shared_->submitted.resize(count);
  shared_->done.reserve(count);
}

ThreadReader::~ThreadReader() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->work.notify_all();
  for (std::thread& thread : shared_->threads) thread.join();
}

void ThreadReader::push(const Read& read) {
  CHECK(in_flight_ < depth_);
  check_read(read);
  pushed_.push_back(read);
  ++in_flight_;
}

void ThreadReader::submit() {
  if (pushed_.empty()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    for (const Read& read : pushed_) {
      shared_->submitted[(shared_->head + shared_->queued++) % shared_->submitted.size()] = read;
    }
  }
  for (size_t i = 0; i < std::min(pushed_.size(), shared_->threads.size()); ++i) shared_->work.notify_one();
  counts_.reads += pushed_.size();
  counts_.submits += pushed_.size();
  pushed_.clear();
}

// Requires: the mutex is held.
size_t ThreadReader::take(std::span<Done> out) {
  std::vector<Done>& done = shared_->done;
  const size_t count = std::min(out.size(), done.size());
  std::copy_n(done.begin(), count, out.begin());
  done.erase(done.begin(), done.begin() + static_cast<ptrdiff_t>(count));
  shared_->done_count.store(done.size(), std::memory_order_relaxed);
  for (const Done& one : out.first(count)) counts_.bytes += one.bytes;
  in_flight_ -= static_cast<int>(count);
  return count;
}

size_t ThreadReader::poll(std::span<Done> out) {
  if (shared_->done_count.load(std::memory_order_acquire) == 0) return 0;
  const std::lock_guard lock(shared_->mutex);
  return take(out);
}

size_t ThreadReader::wait(std::span<Done> out) {
  CHECK(!out.empty());
  submit();
  if (in_flight_ == 0) return 0;
  std::unique_lock lock(shared_->mutex);
  shared_->waiting = true;
  shared_->ended.wait(lock, [&] { return !shared_->done.empty(); });
  shared_->waiting = false;
  return take(out);
}

}  // namespace stoke::io
