#include "sys/profile.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstring>

#include "sys/clock.h"
#include "sys/cpu.h"
#include "sys/memory.h"
#include "sys/peak.h"
#include "sys/thread_pool.h"

namespace stoke::sys {
namespace {

constexpr size_t kReadUnit = 1024;  // read_all's granularity
constexpr size_t kDramBytesMax = size_t{1} << 30;
constexpr size_t kDramBytesMin = size_t{64} << 20;

// Calls once() for about `seconds`, at least three times, and returns the shortest time of a call.
template <typename Once>
double best_seconds(double seconds, Once once) {
  const SystemClock clock;
  const Stopwatch whole(clock);
  double best = 1e30;
  for (int round = 0; round < 3 || whole.seconds() < seconds; ++round) {
    const Stopwatch one(clock);
    once();
    best = std::min(best, one.seconds());
  }
  return best;
}

// Steps that take one call about 5 ms: long against the barrier, short enough to find a quiet moment. The best of
// three, since a call that lost its core once would end the search far too early.
int64_t calibrate(const PeakLoop& loop) {
  for (int64_t steps = 1000;; steps *= 4) {
    if (best_seconds(0, [&] { loop.run(steps); }) > 2e-3) return steps * 2;
  }
}

double ops_per_s(const PeakLoop& loop, int threads, double seconds) {
  ThreadPool pool(threads);
  const int64_t steps = calibrate(loop);
  auto work = [&](int) { loop.run(steps); };
  const double took = best_seconds(seconds, [&] { pool.run(work); });
  return static_cast<double>(steps) * loop.ops_per_step * threads / took;
}

// Each thread reads its own part, as the rows of a matrix are shared out.
double dram_bytes_per_s(const Memory& memory, int threads, double seconds) {
  ThreadPool pool(threads);
  const size_t part = memory.size() / static_cast<size_t>(threads) / kReadUnit * kReadUnit;
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  auto work = [&](int worker) {
    const auto w = static_cast<size_t>(worker);
    sums[w] = read_all(memory.data() + w * part, part);
  };
  const double took = best_seconds(seconds, [&] { pool.run(work); });
  return static_cast<double>(part) * threads / took;
}

// Large against every cache, small against what is free.
Result<Memory> dram_buffer(size_t bytes) {
  if (bytes == 0) bytes = std::clamp<size_t>(machine_memory().available / 4, kDramBytesMin, kDramBytesMax);
  Result<Memory> memory = Memory::map(bytes);
  if (memory.ok()) std::memset(memory->data(), 1, memory->size());
  return memory;
}

}  // namespace

ProfileKey profile_key(const std::string& folder) {
  ProfileKey key;
  key.cpu = cpu_model();
  key.cores = topology().physical_cores;
  utsname name = {};
  if (uname(&name) == 0) key.kernel = name.release;
  struct stat st = {};
  if (!folder.empty() && stat(folder.c_str(), &st) == 0) key.device = st.st_dev;
  return key;
}

double measure_barrier_us(int threads, double seconds) {
  constexpr int kRunsPerBatch = 200;
  const SystemClock clock;
  ThreadPool pool(threads);
  auto nothing = [](int) {};
  std::vector<double> batches;
  const Stopwatch whole(clock);
  while (batches.size() < 5 || whole.seconds() < seconds) {
    const Stopwatch batch(clock);
    for (int i = 0; i < kRunsPerBatch; ++i) pool.run(nothing);
    batches.push_back(batch.seconds() / kRunsPerBatch);
  }
  std::nth_element(batches.begin(), batches.begin() + static_cast<std::ptrdiff_t>(batches.size() / 2), batches.end());
  return batches[batches.size() / 2] * 1e6;
}

Result<MachineProfile> measure_machine(const ProfileOptions& options) {
  const auto tell = [&](const std::string& what) {
    if (options.progress) options.progress(what);
  };
  MachineProfile profile;
  profile.key = profile_key(options.folder);
  profile.threads = options.threads > 0 ? options.threads : default_threads(topology());
  tell("memory reads");
  {
    STOKE_ASSIGN(const Memory memory, dram_buffer(options.dram_bytes));
    profile.dram_read_one_thread_bytes_per_s = dram_bytes_per_s(memory, 1, options.seconds_per_step);
    profile.dram_read_all_threads_bytes_per_s = dram_bytes_per_s(memory, profile.threads, options.seconds_per_step);
  }
  for (const PeakLoop& loop : peak_loops()) {
    tell(std::string("arithmetic: ") + loop.name);
    profile.peaks.push_back({loop.name, loop.int8, ops_per_s(loop, 1, options.seconds_per_step),
                             ops_per_s(loop, profile.threads, options.seconds_per_step)});
  }
  tell("barrier");
  for (int threads = 1; threads <= profile.threads; ++threads) {
    profile.barrier.push_back({threads, measure_barrier_us(threads, options.seconds_per_step)});
  }
  if (options.folder.empty()) return profile;
  STOKE_ASSIGN(profile.disk, measure_disk(options));
  return profile;
}

}  // namespace stoke::sys
