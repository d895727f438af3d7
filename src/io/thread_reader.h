// Reads by a pool of threads that each wait in pread: for machines, containers and Android that refuse io_uring.
//
// Costs two context switches a read (docs/reads.md has the numbers), so it is the fallback. poll() looks at one atomic.
// Thread role, ownership, errors: as reader.h; its threads are its own.
#pragma once

#include <memory>
#include <vector>

#include "io/reader.h"

namespace stoke::io {

class ThreadReader final : public Reader {
 public:
  // One thread for each read in flight, but no more than threads_max.
  static Result<std::unique_ptr<ThreadReader>> open(int depth, int threads_max = 64);
  ~ThreadReader() override;

  const char* name() const override { return "threads"; }
  int depth() const override { return depth_; }
  int in_flight() const override { return in_flight_; }
  void push(const Read& read) override;
  void submit() override;
  size_t poll(std::span<Done> out) override;
  size_t wait(std::span<Done> out) override;
  ReadCounts counts() const override { return counts_; }

 private:
  struct Shared;
  explicit ThreadReader(int depth);
  size_t take(std::span<Done> out);

  int depth_;
  int in_flight_ = 0;
  std::vector<Read> pushed_;  // not yet submitted
  ReadCounts counts_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace stoke::io
