// A simulated disk behind the reader's interface: latency, reordering, short reads, errors, flipped bits, slow spells,
// a file cut short. For tests: every fault is drawn from the seed, in the order of pushes, so a seed that fails
// replays.
//
// Over a ManualClock time passes only where the reader is asked: each poll() moves the clock by poll_step_ns, and
// wait() moves it to the next read that ends. Then everything is a function of the seed and the calls made. Over
// another clock reads end in real time. Destination bytes hold junk from push to the end of the read, so that whoever
// looks early is found out. Thread role, ownership, errors: as reader.h; the clock outlives the reader.
#pragma once

#include <functional>
#include <random>
#include <vector>

#include "io/progress.h"
#include "io/reader.h"
#include "sys/clock.h"

namespace stoke::io {

struct SimOptions {
  uint64_t seed = 1;
  int depth = 32;
  // A read ends after latency + (0..1) * jitter; jitter above the latency of a transfer is what reorders.
  int64_t latency_ns = 80'000;
  int64_t jitter_ns = 160'000;
  double bytes_per_s = 1.5e9;  // what all reads share; 0: no limit
  int64_t poll_step_ns = 10'000;
  // Shares of the attempts (0..1) that ...
  double slow = 0;                // take ten times the latency and jitter
  double torn = 0;                // bring a part of what was asked (whole sectors of direct files)
  double again = 0;               // are refused with EAGAIN
  double error = 0;               // fail with error_number
  double flip = 0;                // come with one bit flipped
  int error_number = 5;           // EIO
  uint64_t ends_at = UINT64_MAX;  // every file ends here, if not earlier
};

// Faults that were injected: a test that asks for some can see that there were any.
struct SimFaults {
  uint64_t slow = 0, torn = 0, again = 0, errors = 0, flips = 0;
};

// Where the bytes come from: fills dst from `offset`, and says how many there were (fewer: the end), or a negated
// errno.
using SimData = std::function<int64_t(const Read& read, uint64_t offset, std::span<std::byte> dst)>;
SimData sim_file_data();                                   // pread of the read's own file
SimData sim_image_data(std::span<const std::byte> image);  // the same image for every file; read.file may be null

class SimReader final : public Reader {
 public:
  SimReader(const SimOptions& options, SimData data, sys::ManualClock& clock);
  SimReader(const SimOptions& options, SimData data, const sys::Clock& clock);

  const char* name() const override { return "simulator"; }
  int depth() const override { return options_.depth; }
  int in_flight() const override { return static_cast<int>(flying_.size()); }
  void push(const Read& read) override;
  void submit() override;
  size_t poll(std::span<Done> out) override;
  size_t wait(std::span<Done> out) override;
  ReadCounts counts() const override { return counts_; }

  const SimFaults& faults() const { return faults_; }
  SimOptions& options() { return options_; }  // tests may change the weather in flight

 private:
  static constexpr int64_t kNotStarted = INT64_MAX;
  struct Flying {
    Progress progress;
    int64_t due_ns = kNotStarted;
    int64_t result = 0;
    bool flip = false;
  };
  double draw() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  bool draw(double share, uint64_t* count);
  void attempt(Flying& flying);
  int64_t bring(Flying& flying);
  size_t take(std::span<Done> out);
  int64_t next_due_ns() const;

  SimOptions options_;
  SimData data_;
  const sys::Clock& clock_;
  sys::ManualClock* manual_ = nullptr;  // the same clock where it can be moved
  std::mt19937_64 random_;
  std::vector<Flying> flying_;
  int64_t busy_until_ns_ = 0;  // the shared transfer
  ReadCounts counts_;
  SimFaults faults_;
};

}  // namespace stoke::io
