// The disk part of the machine profile: random reads by size and depth, sequential reads direct and through the cache.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "base/check.h"
#include "sys/clock.h"
#include "sys/files.h"
#include "sys/memory.h"
#include "sys/profile.h"
#include "sys/uring.h"

namespace stoke::sys {
namespace {

constexpr uint64_t kRequestBytes[] = {4 << 10, 8 << 10, 32 << 10, 128 << 10, 1 << 20};
constexpr int kDepths[] = {1, 4, 32};
constexpr int kDepthMax = 32;
constexpr uint64_t kRequestBytesMax = 1 << 20;
constexpr uint64_t kSequentialBytes = 4 << 20;
constexpr uint64_t kFileUnit = 4 << 20;  // the file is whole units, so that every request fits
constexpr uint64_t kFileBytesMin = 16 << 20;
// Where reads land. Weights land in memory that no cache holds; a buffer that is read into again and again stays in
// one, and made a virtual disk look 1.4 times as fast (3.3 GB/s instead of 2.3).
constexpr uint64_t kLandingBytes = 256 << 20;

// Removes the file again, whatever happens.
struct TemporaryFile {
  std::string path;
  ~TemporaryFile() { unlink(path.c_str()); }
};

// Pseudo-random bytes: disks and file systems that compress or skip zeros must not look fast.
Status fill(const File& file, uint64_t bytes) {
  std::vector<uint64_t> unit(kFileUnit / sizeof(uint64_t));
  std::mt19937_64 random(1);
  for (uint64_t& word : unit) word = random();
  for (uint64_t at = 0; at < bytes; at += kFileUnit) {
    unit[0] = at;
    STOKE_TRY(file.pwrite_full(unit.data(), kFileUnit, at));
  }
  return file.sync();
}

// One random-read measurement: what every reader needs.
struct RandomReads {
  const File& file;
  uint64_t file_bytes;
  uint64_t request_bytes;
  int depth;
  double seconds;
  const Memory& landing;  // shared out among the slots

  // Where read number `number` of a slot lands.
  std::byte* buffer(int slot, uint64_t number) const {
    const size_t part = landing.size() / static_cast<size_t>(depth) / kRequestBytesMax * kRequestBytesMax;
    return landing.data() + static_cast<size_t>(slot) * part + number % (part / request_bytes) * request_bytes;
  }
};

uint64_t random_offset(const RandomReads& reads, std::mt19937_64& random) {
  return random() % (reads.file_bytes / reads.request_bytes) * reads.request_bytes;
}

DiskRate rate_of(const RandomReads& reads, uint64_t requests, double took) {
  const auto count = static_cast<double>(requests);
  return {.request_bytes = reads.request_bytes,
          .depth = reads.depth,
          .bytes_per_s = count * static_cast<double>(reads.request_bytes) / took,
          .latency_us = requests == 0 ? 0 : took * reads.depth / count * 1e6};
}

Result<DiskRate> random_with_threads(const RandomReads& reads) {
  const SystemClock clock;
  const Stopwatch watch(clock);
  std::atomic<uint64_t> requests{0};
  std::vector<Status> failures(static_cast<size_t>(reads.depth));
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(reads.depth));
  for (int slot = 0; slot < reads.depth; ++slot) {
    threads.emplace_back([&, slot] {
      std::mt19937_64 random(static_cast<uint64_t>(slot) + 1);
      Status& failure = failures[static_cast<size_t>(slot)];
      for (uint64_t n = 0; failure.ok() && watch.seconds() < reads.seconds; ++n) {
        failure = reads.file.pread_full(reads.buffer(slot, n), reads.request_bytes, random_offset(reads, random));
        requests.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& failure : failures) STOKE_TRY(failure);
  return rate_of(reads, requests.load(), watch.seconds());
}

Result<DiskRate> random_with_ring(const RandomReads& reads, Uring& ring) {
  const SystemClock clock;
  std::mt19937_64 random(1);
  uint64_t requests = 0;
  int in_flight = 0;
  std::array<uint64_t, kDepthMax> number{};
  const auto start_read = [&](int slot) {
    std::byte* buffer = reads.buffer(slot, number[static_cast<size_t>(slot)]++);
    ring.prepare_read(reads.file, buffer, static_cast<uint32_t>(reads.request_bytes), random_offset(reads, random),
                      slot);
    ++in_flight;
  };
  const Stopwatch watch(clock);
  for (int slot = 0; slot < reads.depth; ++slot) start_read(slot);
  Status failure;
  while (in_flight > 0) {
    const int started = ring.submit(Uring::Wait::kForOne);
    if (started < 0) {
      return Status(Code::kIo, fmt::format("io_uring: cannot submit reads: {}", errno_text(-started)));
    }
    const bool more = watch.seconds() < reads.seconds;
    for (std::optional<Uring::Done> done = ring.take(); done; done = ring.take()) {
      --in_flight;
      ++requests;
      if (done->result != static_cast<int64_t>(reads.request_bytes)) {
        failure = Status(Code::kIo, fmt::format("{}: a read of {} bytes gave {}", reads.file.path(),
                                                reads.request_bytes, done->result));
      }
      if (more && failure.ok()) start_read(done->slot);
    }
  }
  STOKE_TRY(failure);
  return rate_of(reads, requests, watch.seconds());
}

// Once through the file with large requests, no longer than a few times the usual step.
Result<double> sequential(const File& file, uint64_t file_bytes, double seconds, const Memory& landing) {
  const SystemClock clock;
  const Stopwatch watch(clock);
  uint64_t at = 0;
  for (; at < file_bytes && watch.seconds() < 4 * seconds; at += kSequentialBytes) {
    STOKE_TRY(file.pread_full(landing.data() + at % landing.size(), kSequentialBytes, at));
  }
  return static_cast<double>(at) / watch.seconds();
}

Status measure_rates(const ProfileOptions& options, const File& buffered, const File& direct, DiskProfile* disk) {
  const uint64_t landing_bytes = std::clamp(disk->file_bytes, kDepthMax * kRequestBytesMax, kLandingBytes);
  STOKE_ASSIGN(const Memory landing, Memory::map(landing_bytes / kSequentialBytes * kSequentialBytes));
  landing.populate(0, landing.size());
  Result<Uring> ring = Uring::open(kDepthMax);
  disk->reader = ring.ok() ? "io_uring" : "threads";
  for (const uint64_t request_bytes : kRequestBytes) {
    for (const int depth : kDepths) {
      if (options.progress) options.progress(fmt::format("disk: {} KiB, depth {}", request_bytes / 1024, depth));
      if (!disk->direct) direct.drop_cached(0, 0);
      const RandomReads reads = {direct, disk->file_bytes, request_bytes, depth, options.seconds_per_step, landing};
      STOKE_ASSIGN(const DiskRate rate, ring.ok() ? random_with_ring(reads, *ring) : random_with_threads(reads));
      disk->random.push_back(rate);
    }
  }
  if (options.progress) options.progress("disk: sequential");
  buffered.drop_cached(0, 0);
  STOKE_ASSIGN(disk->sequential_buffered_bytes_per_s,
               sequential(buffered, disk->file_bytes, options.seconds_per_step, landing));
  buffered.drop_cached(0, 0);
  STOKE_ASSIGN(disk->sequential_direct_bytes_per_s,
               sequential(direct, disk->file_bytes, options.seconds_per_step, landing));
  return ok_status();
}

}  // namespace

Result<DiskProfile> measure_disk(const ProfileOptions& options) {
  DiskProfile disk;
  disk.folder = options.folder;
  disk.file_bytes = std::max(options.file_bytes / kFileUnit * kFileUnit, kFileBytesMin);
  STOKE_ASSIGN(const uint64_t free, free_space(options.folder));
  if (free < disk.file_bytes + disk.file_bytes / 8) {
    return Status(Code::kNoSpace, fmt::format("{}: {} bytes are free, the measurement writes {}; choose another folder "
                                              "(--dir) or a smaller file (--size)",
                                              options.folder, free, disk.file_bytes));
  }
  const TemporaryFile temporary = {fmt::format("{}/.stoke-profile-{}.tmp", options.folder, getpid())};
  if (options.progress) options.progress("disk: writing a temporary file");
  {
    STOKE_ASSIGN(const File file, File::create(temporary.path));
    STOKE_TRY(fill(file, disk.file_bytes));
    file.drop_cached(0, 0);
  }
  STOKE_ASSIGN(const File buffered, File::open_read(temporary.path));
  STOKE_ASSIGN(const File direct, File::open_direct(temporary.path));
  disk.direct = direct.direct();
  disk.why_not_direct = direct.why_not_direct();
  STOKE_TRY(measure_rates(options, buffered, direct, &disk));
  return disk;
}

}  // namespace stoke::sys
