#include "io/uring_reader.h"

#include <optional>

#include "base/check.h"

namespace stoke::io {

using sys::Uring;

#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_write_range(void* begin, unsigned long bytes);
#endif

namespace {

// The kernel's writes are hidden from the thread sanitizer. It is told of one when a buffer is given away and one when
// it comes back, so that a worker that still reads a slot which is being filled is a race that it reports.
void told_to_sanitizer(const Progress& progress) {
#if defined(__SANITIZE_THREAD__)
  __tsan_write_range(progress.dst(), progress.bytes());
#else
  (void)progress;
#endif
}

}  // namespace

Result<std::unique_ptr<UringReader>> UringReader::open(int depth) {
  CHECK(depth >= 1);
  STOKE_ASSIGN(Uring ring, Uring::open(depth));
  return std::unique_ptr<UringReader>(new UringReader(std::move(ring), depth));
}

UringReader::UringReader(Uring ring, int depth) : ring_(std::move(ring)), slots_(static_cast<size_t>(depth)) {
  const auto count = static_cast<size_t>(depth);
  unused_.reserve(count);
  for (int slot = depth; slot-- > 0;) unused_.push_back(slot);
  prepared_.reserve(count);
  failed_.reserve(count);
}

UringReader::~UringReader() {
  // The kernel writes to the callers' memory until the last read is done, whatever happens to the ring. What was never
  // started is forgotten with the ring.
  size_t started = static_cast<size_t>(in_flight()) - prepared_.size() - failed_.size();
  while (started > 0) {
    CHECK(ring_.wait() == 0);
    while (ring_.take()) --started;
  }
}

void UringReader::push(const Read& read) {
  CHECK(!unused_.empty());
  check_read(read);
  const int slot = unused_.back();
  unused_.pop_back();
  slots_[static_cast<size_t>(slot)] = Progress(read);
  ++counts_.reads;
  prepare(slot);
}

void UringReader::prepare(int slot) {
  if (broken_ != 0) return failed_.push_back(slot);
  const Progress& progress = slots_[static_cast<size_t>(slot)];
  told_to_sanitizer(progress);
  ring_.prepare_read(*progress.read().file, progress.dst(), progress.bytes(), progress.offset(), slot);
  prepared_.push_back(slot);
}

void UringReader::start(Uring::Wait wait) {
  if (prepared_.empty() && wait == Uring::Wait::kNo) return;
  const int started = broken_ == 0 ? ring_.submit(wait) : ring_.wait();
  if (started < 0) return give_up(-started);
  if (started > 0) ++counts_.submits;
  prepared_.erase(prepared_.begin(), prepared_.begin() + started);
  left_over_ = !prepared_.empty();
}

// The ring takes no more: what it has started will still end, the rest fails now.
void UringReader::give_up(int error) {
  CHECK(broken_ == 0);  // waiting alone does not fail
  broken_ = error;
  std::vector<int> stuck;
  stuck.swap(prepared_);
  for (const int slot : stuck) prepare(slot);
}

size_t UringReader::take(std::span<Done> out) {
  size_t count = 0;
  const auto give = [&](int slot, const Done& done) {
    counts_.bytes += done.bytes;
    unused_.push_back(slot);
    out[count++] = done;
  };
  for (; count < out.size() && !failed_.empty(); failed_.pop_back()) {
    const int slot = failed_.back();
    give(slot, {slots_[static_cast<size_t>(slot)].read().tag, broken_, 0});
  }
  while (count < out.size()) {
    const std::optional<Uring::Done> ended = ring_.take();
    if (!ended) break;
    Progress& progress = slots_[static_cast<size_t>(ended->slot)];
    told_to_sanitizer(progress);
    const std::optional<Done> done = progress.advance(ended->result);
    if (done) {
      give(ended->slot, *done);
    } else {
      prepare(ended->slot);
      left_over_ = true;
    }
  }
  return count;
}

size_t UringReader::poll(std::span<Done> out) {
  const size_t count = take(out);
  if (left_over_) submit();
  return count;
}

size_t UringReader::wait(std::span<Done> out) {
  CHECK(!out.empty());
  for (;;) {
    const size_t count = take(out);
    if (count > 0) {
      submit();
      return count;
    }
    if (in_flight() == 0) return 0;
    start(Uring::Wait::kForOne);
  }
}

}  // namespace stoke::io
