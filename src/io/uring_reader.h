// Reads over io_uring: pushing writes to memory shared with the kernel, submit() is one system call for all that was
// pushed, poll() reads the completion queue and makes none (but to go on with a short read, which is rare).
//
// Thread role, ownership, errors: as reader.h. open() is kUnsupported where io_uring is refused.
#pragma once

#include <memory>
#include <vector>

#include "io/progress.h"
#include "io/reader.h"
#include "sys/uring.h"

namespace stoke::io {

class UringReader final : public Reader {
 public:
  static Result<std::unique_ptr<UringReader>> open(int depth);
  ~UringReader() override;

  const char* name() const override { return "io_uring"; }
  int depth() const override { return static_cast<int>(slots_.size()); }
  int in_flight() const override { return depth() - static_cast<int>(unused_.size()); }
  void push(const Read& read) override;
  void submit() override { start(sys::Uring::Wait::kNo); }
  size_t poll(std::span<Done> out) override;
  size_t wait(std::span<Done> out) override;
  ReadCounts counts() const override { return counts_; }

 private:
  UringReader(sys::Uring ring, int depth);
  void prepare(int slot);
  void start(sys::Uring::Wait wait);
  void give_up(int error);
  size_t take(std::span<Done> out);

  sys::Uring ring_;
  std::vector<Progress> slots_;
  std::vector<int> unused_;
  std::vector<int> prepared_;  // in the ring and not started, in order
  std::vector<int> failed_;    // what the ring would not take
  int broken_ = 0;             // the error after which the ring is given nothing more
  bool left_over_ = false;     // something was submitted and is still, or again, in prepared_
  ReadCounts counts_;
};

}  // namespace stoke::io
