// Holds blocks that were read against their checksums, by whoever has time: hashing 1 MiB takes about 0.1 ms, which the
// thread that drives the disk has not.
//
// The control thread hands blocks in and takes them out; in between any thread does a piece of one at a time (help()).
// A block that is needed at once is finished by the control thread (hurry()).
// Thread role: help() by any thread, the rest by the control thread. Ownership: bytes and checksums are the caller's;
// bytes stay until the block was taken. Nothing is allocated after construction. Errors: none; damage is a result.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "sys/checked_ranges.h"

namespace stoke::pipeline {

class BlockChecker {
 public:
  struct Block {
    int32_t unit = 0;  // the caller's number
    const std::byte* data = nullptr;
    uint64_t offset = 0;  // in the file
    uint64_t bytes = 0;
  };
  struct Checked {
    int32_t unit = 0;
    std::optional<uint64_t> damaged;  // where in the file
  };

  // They outlive the checker. Before the first push().
  void check_against(const sys::CheckedRanges* checks) { checks_ = checks; }
  // False where nothing is known to check against, or no room is left: then the caller checks for itself.
  bool push(const Block& block);
  // Does a piece of work. False where there is none.
  bool help();
  // A block that is finished, each once.
  std::optional<Checked> take();
  // Returns once this unit is finished; false where it is not here.
  bool hurry(int32_t unit);
  // Returns once all are.
  void hurry_all();

 private:
  static constexpr size_t kBlocks = 32;  // more than a window of blocks that stream
  static constexpr uint64_t kPieceBytes = 128 << 10;
  enum class State { kFree, kWaiting, kClaimed, kDone };
  struct Entry {
    std::atomic<State> state{State::kFree};
    Block block;
    uint64_t at = 0;  // bytes that were checked
    std::optional<uint64_t> damaged;
  };
  Entry& at(size_t position) { return entries_[position % kBlocks]; }
  bool work(Entry& entry);
  void finish(Entry& entry);

  const sys::CheckedRanges* checks_ = nullptr;
  std::array<Entry, kBlocks> entries_;
  std::atomic<size_t> head_{0};  // positions count up: [head, tail) may be in use
  std::atomic<size_t> tail_{0};
};

}  // namespace stoke::pipeline
