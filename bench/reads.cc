// What reading a file costs: rate and processor time by backend (io_uring, threads), mode (direct, buffered), request
// size and depth, at random places and in order; and in order through mmap, as engines that map their weights read.
// docs/reads.md says what came out. One line of JSON a measurement; cold: what the cache held is dropped before each.
// usage: bench_reads FILE random|sequential|mmap [SECONDS [READER [MODE [BYTES [DEPTH]]]]]  (0 or all: every one)
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "io/reader.h"
#include "sys/clock.h"
#include "sys/files.h"
#include "sys/memory.h"

namespace stoke {
namespace {

constexpr uint32_t kRandomBytes[] = {4608, 8 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20};
constexpr uint32_t kSequentialBytes[] = {128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20};
constexpr int kDepths[] = {1, 2, 4, 8, 16, 32, 64, 128};
constexpr int kLaps = 4;
constexpr size_t kBufferBytes = size_t{256} << 20;  // depth 64 of 4 MiB

struct Arguments {
  std::string path;
  std::string pattern;
  double seconds = 0.3;
  std::string reader = "all";
  std::string mode = "all";
  uint32_t bytes = 0;
  int depth = 0;
};

double cpu_seconds() {
  rusage used = {};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// Bytes that this process made the disk bring, as the kernel counts them; 0 where it does not.
double disk_bytes() {
  const Result<std::string> text = sys::read_file("/proc/self/io");
  const size_t at = text.ok() ? text->find("\nread_bytes: ") : std::string::npos;
  return at == std::string::npos ? 0 : std::atof(text->c_str() + at + 13);
}

// Rate and processor time from construction to print().
class Meter {
 public:
  double seconds() const { return watch_.seconds(); }
  void print(const std::string& what, uint64_t reads, uint64_t bytes) const {
    const double took = watch_.seconds(), cpu = cpu_seconds() - cpu_before_, all = static_cast<double>(bytes);
    fmt::print("{{{}, \"reads_per_s\": {:.0f}, \"mb_per_s\": {:.0f}, \"disk_share\": {:.3f}, ", what,
               static_cast<double>(reads) / took, all / took / 1e6, (disk_bytes() - disk_before_) / all);
    fmt::print("\"cpu_s_per_gb\": {:.3f}, \"cpu_us_per_read\": {:.2f}}}\n", cpu / all * 1e9,
               cpu / static_cast<double>(reads) * 1e6);
    std::fflush(stdout);
  }

 private:
  sys::SystemClock clock_;
  sys::Stopwatch watch_{clock_};
  double cpu_before_ = cpu_seconds();
  double disk_before_ = disk_bytes();
};

struct Point {
  const sys::File& file;
  uint64_t file_bytes;
  uint32_t bytes;
  int depth;
  bool random;
  double seconds;
  std::byte* buffers;
};

// Keeps `depth` reads in flight, taking all that is done at once.
Status measure(io::Reader& reader, const Point& point, const std::string& what) {
  std::mt19937_64 random(1);
  std::vector<io::Done> done(static_cast<size_t>(point.depth));
  const uint64_t places = point.file_bytes / point.bytes;
  uint64_t next = 0, ended = 0;
  const auto push = [&](uint64_t slot) {
    const uint64_t place = point.random ? random() % places : next % places;
    // Into other memory each time, as weights are read: a buffer used again lies in a cache and makes disks look
    // faster.
    std::byte* buffer = point.buffers + next % (kBufferBytes / point.bytes) * point.bytes;
    ++next;
    reader.push({&point.file, place * point.bytes, point.bytes, point.bytes, buffer, slot});
  };
  const Meter meter;
  for (int slot = 0; slot < point.depth; ++slot) push(static_cast<uint64_t>(slot));
  while (reader.in_flight() > 0) {
    const size_t count = reader.wait(done);
    const bool more = meter.seconds() < point.seconds && (point.random || next < places);
    for (const io::Done& one : std::span(done).first(count)) {
      if (one.error != 0) return io::read_failure({.file = &point.file, .bytes = point.bytes}, one);
      if (more) push(one.tag);
    }
    ended += count;
  }
  meter.print(what, ended, ended * point.bytes);
  return ok_status();
}

Status with_reader(const Arguments& arguments, const sys::File& file, uint64_t file_bytes, const std::string& pages,
                   std::byte* buffers, io::ReaderOptions::Backend backend) {
  const bool random = arguments.pattern == "random";
  const std::span<const uint32_t> sizes = random ? std::span<const uint32_t>(kRandomBytes) : kSequentialBytes;
  for (const uint32_t bytes : sizes) {
    for (const int depth : kDepths) {
      if (arguments.bytes != 0 && arguments.bytes != bytes) continue;
      if (arguments.depth != 0 && arguments.depth != depth) continue;
      if (uint64_t{bytes} * static_cast<uint64_t>(depth) > kBufferBytes) continue;
      io::ReaderOptions options;
      options.depth = depth;
      options.backend = backend;
      STOKE_ASSIGN(const std::unique_ptr<io::Reader> reader, io::open_reader(options, nullptr));
      file.drop_cached(0, 0);
      const std::string what = fmt::format(
          "\"pattern\": \"{}\", \"reader\": \"{}\", \"mode\": \"{}\", \"pages\": \"{}\", \"bytes\": {}, \"depth\": {}",
          arguments.pattern, reader->name(), file.direct() ? "direct" : "buffered", pages, bytes, depth);
      STOKE_TRY(measure(*reader, {file, file_bytes, bytes, depth, random, arguments.seconds, buffers}, what));
    }
  }
  return ok_status();
}

// Laps over the mapped file, one word a page: what a forward pass of a dense model does to the page cache. disk_share
// says how much of a lap the disk brought; under a memory limit below the file's size it is not all of it.
Status measure_mmap(const sys::File& file, uint64_t file_bytes, int advice, const char* name) {
  file.drop_cached(0, 0);
  void* mapped = mmap(nullptr, file_bytes, PROT_READ, MAP_SHARED, file.fd(), 0);
  if (mapped == MAP_FAILED) return Status(Code::kIo, "cannot map the file");
  madvise(mapped, file_bytes, advice);
  volatile uint64_t sum = 0;
  for (int lap = 0; lap < kLaps; ++lap) {
    const Meter meter;
    for (uint64_t at = 0; at + 4096 <= file_bytes; at += 4096) {
      uint64_t word = 0;
      std::memcpy(&word, static_cast<const std::byte*>(mapped) + at, sizeof(word));
      sum = sum + word;
    }
    const std::string what = fmt::format("\"pattern\": \"mmap\", \"advice\": \"{}\", \"lap\": {}", name, lap);
    meter.print(what, file_bytes / 4096, file_bytes);
  }
  munmap(mapped, file_bytes);
  file.drop_cached(0, 0);
  return ok_status();
}

Status run(const Arguments& arguments) {
  STOKE_ASSIGN(const sys::File buffered, sys::File::open_read(arguments.path));
  STOKE_ASSIGN(const sys::File direct, sys::File::open_direct(arguments.path));
  STOKE_ASSIGN(const uint64_t file_bytes, buffered.size());
  if (arguments.pattern == "mmap") {
    STOKE_TRY(measure_mmap(buffered, file_bytes, MADV_NORMAL, "none"));
    return measure_mmap(buffered, file_bytes, MADV_SEQUENTIAL, "sequential");
  }
  for (const std::string pages : {"huge", "small"}) {
    STOKE_ASSIGN(const sys::Memory memory, sys::Memory::map(kBufferBytes));
    if (pages == "small") madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE);
    memory.populate(0, memory.size());
    for (const sys::File* file : {&direct, &buffered}) {
      const std::string mode = file == &direct ? "direct" : "buffered";
      if (arguments.mode != "all" && arguments.mode != mode) continue;
      if (pages == "small" && (mode == "buffered" || arguments.pattern == "random")) continue;
      using Backend = io::ReaderOptions::Backend;
      for (const Backend backend : {Backend::kUring, Backend::kThreads}) {
        if (arguments.reader != "all" && (arguments.reader == "threads") != (backend == Backend::kThreads)) continue;
        STOKE_TRY(with_reader(arguments, *file, file_bytes, pages, memory.data(), backend));
      }
    }
  }
  return ok_status();
}

}  // namespace
}  // namespace stoke

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: bench_reads FILE random|sequential|mmap [SECONDS [READER [MODE [BYTES [DEPTH]]]]]\n");
    return 2;
  }
  stoke::Arguments arguments = {.path = argv[1], .pattern = argv[2]};
  if (argc > 3) arguments.seconds = std::atof(argv[3]);
  if (argc > 4) arguments.reader = argv[4];
  if (argc > 5) arguments.mode = argv[5];
  if (argc > 6) arguments.bytes = static_cast<uint32_t>(std::atoll(argv[6]));
  if (argc > 7) arguments.depth = std::atoi(argv[7]);
  const stoke::Status status = stoke::run(arguments);
  if (!status.ok()) fmt::print(stderr, "bench_reads: {}\n", status.message());
  return status.ok() ? 0 : 1;
}
