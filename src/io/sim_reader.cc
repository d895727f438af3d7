#include "io/sim_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/check.h"

namespace stoke::io {
namespace {

constexpr std::byte kJunk{0xA5};
constexpr uint64_t kSectorBytes = 512;

void sleep_ns(int64_t ns) {
  const timespec rest = {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
  nanosleep(&rest, nullptr);
}

}  // namespace

SimData sim_file_data() {
  return [](const Read& read, uint64_t offset, std::span<std::byte> dst) -> int64_t {
    const ssize_t got = pread(read.file->fd(), dst.data(), dst.size(), static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
  };
}

SimData sim_image_data(std::span<const std::byte> image) {
  return [image](const Read&, uint64_t offset, std::span<std::byte> dst) -> int64_t {
    const size_t count = offset < image.size() ? std::min(dst.size(), image.size() - offset) : 0;
    if (count > 0) std::memcpy(dst.data(), image.data() + offset, count);
    return static_cast<int64_t>(count);
  };
}

SimReader::SimReader(const SimOptions& options, SimData data, const sys::Clock& clock)
    : options_(options), data_(std::move(data)), clock_(clock), random_(options.seed) {
  CHECK(options.depth >= 1);
  flying_.reserve(static_cast<size_t>(options.depth));
}

SimReader::SimReader(const SimOptions& options, SimData data, sys::ManualClock& clock)
    : SimReader(options, std::move(data), static_cast<const sys::Clock&>(clock)) {
  manual_ = &clock;
}

bool SimReader::draw(double share, uint64_t* count) {
  const bool hit = draw() < share;
  if (hit) ++*count;
  return hit;
}

void SimReader::push(const Read& read) {
  CHECK(in_flight() < depth());
  check_read(read);
  std::fill_n(read.dst, read.bytes, kJunk);
  flying_.push_back({.progress = Progress(read)});
  ++counts_.reads;
}

void SimReader::submit() {
  bool any = false;
  for (Flying& flying : flying_) {
    if (flying.due_ns != kNotStarted) continue;
    attempt(flying);
    any = true;
  }
  if (any) ++counts_.submits;
}

// Decides how the read's next attempt will end, and when. Always the same number of draws, so that a changed share
// moves nothing else.
void SimReader::attempt(Flying& flying) {
  const double luck = draw();
  const bool slow = draw(options_.slow, &faults_.slow);
  const bool again = draw(options_.again, &faults_.again);
  const bool error = draw(options_.error, &faults_.errors);
  const bool torn = draw(options_.torn, &faults_.torn);
  flying.flip = draw(options_.flip, &faults_.flips);
  const double part = draw();

  auto bytes = static_cast<int64_t>(flying.progress.bytes());
  if (torn) {
    bytes = static_cast<int64_t>(static_cast<double>(bytes) * part);
    const sys::File* file = flying.progress.read().file;
    if (file != nullptr && file->direct()) bytes -= bytes % static_cast<int64_t>(kSectorBytes);
    bytes = std::max<int64_t>(bytes, std::min<int64_t>(flying.progress.bytes(), kSectorBytes));
  }
  flying.result = again ? -EAGAIN : error ? -options_.error_number : bytes;
  const double wait = static_cast<double>(options_.latency_ns) + luck * static_cast<double>(options_.jitter_ns);
  const double transfer = options_.bytes_per_s > 0 ? static_cast<double>(bytes) / options_.bytes_per_s * 1e9 : 0;
  busy_until_ns_ = std::max(busy_until_ns_, clock_.now_ns()) + static_cast<int64_t>(transfer);
  flying.due_ns = busy_until_ns_ + static_cast<int64_t>(slow ? 10 * wait : wait);
}

// The moment the read ends: the bytes appear. Returns what the system would.
int64_t SimReader::bring(Flying& flying) {
  if (flying.result < 0) return flying.result;
  const Progress& progress = flying.progress;
  const uint64_t left = progress.offset() < options_.ends_at ? options_.ends_at - progress.offset() : 0;
  const auto bytes = static_cast<size_t>(std::min(left, static_cast<uint64_t>(flying.result)));
  // Direct files are read in whole sectors, also where the simulated end is not at an edge.
  const uint32_t alignment = progress.read().file != nullptr ? progress.read().file->alignment() : 1;
  const size_t asked = std::min<size_t>((bytes + alignment - 1) / alignment * alignment, progress.bytes());
  const int64_t got = data_(progress.read(), progress.offset(), {progress.dst(), asked});
  const int64_t came = std::min(got, static_cast<int64_t>(bytes));
  if (came > 0 && flying.flip) {
    const uint64_t bit = random_() % (static_cast<uint64_t>(came) * 8);
    progress.dst()[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
  }
  return came;
}

int64_t SimReader::next_due_ns() const {
  int64_t next = kNotStarted;
  for (const Flying& flying : flying_) next = std::min(next, flying.due_ns);
  return next;
}

// In the order in which they end.
size_t SimReader::take(std::span<Done> out) {
  size_t count = 0;
  while (count < out.size()) {
    const auto first = std::min_element(flying_.begin(), flying_.end(),
                                        [](const Flying& a, const Flying& b) { return a.due_ns < b.due_ns; });
    if (first == flying_.end() || first->due_ns > clock_.now_ns() || first->due_ns == kNotStarted) break;
    const std::optional<Done> done = first->progress.advance(bring(*first));
    if (!done) {
      attempt(*first);
      continue;
    }
    counts_.bytes += done->bytes;
    out[count++] = *done;
    flying_.erase(first);
  }
  return count;
}

size_t SimReader::poll(std::span<Done> out) {
  if (manual_ != nullptr) manual_->advance_ns(options_.poll_step_ns);
  return take(out);
}

size_t SimReader::wait(std::span<Done> out) {
  CHECK(!out.empty());
  submit();
  for (;;) {
    const size_t count = take(out);
    if (count > 0 || flying_.empty()) return count;
    const int64_t rest_ns = next_due_ns() - clock_.now_ns();
    if (manual_ != nullptr) {
      manual_->advance_ns(rest_ns);
    } else if (rest_ns > 0) {
      sleep_ns(rest_ns);
    }
  }
}

}  // namespace stoke::io
