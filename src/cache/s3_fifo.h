// S3-FIFO (Yang et al., SOSP 2023): a small queue that newcomers must survive, a main queue, and a memory of who left.
//
// A tenth of the slots is the small queue. At its end, units used twice since go to main, others leave and are
// remembered (ghosts) for as many evictions as there are slots; a ghost that comes back goes to main at once. At main's
// end a unit that was used since goes round again, three times at most.
// Ghosts are not a queue: each unit keeps the time it left, in 16 bits and in steps of 1/64 of the slots. Times wrap
// after 1024 times the slots; a wrongly remembered ghost costs nothing but its place. Thread role, ownership and
// errors: see policy.h. evict() passes over slots that are held, so it is O(1) only while those are few, as in one
// layer's work.
#pragma once

#include <array>
#include <vector>

#include "cache/policy.h"
#include "cache/slot_lists.h"

namespace stoke::cache {

class S3FifoPolicy final : public Policy {
 public:
  S3FifoPolicy(int64_t units, int64_t slots);
  static size_t bytes(int64_t units, int64_t slots);

  void admit(int32_t unit, int32_t slot) override;
  void touch(int32_t unit, int32_t slot, int64_t uses) override;
  int32_t evict(int32_t unit, bool must) override;
  void remove(int32_t slot) override;
  void hold(int32_t slot) override;
  void resume(int32_t unit, int32_t slot) override;
  void resize(int64_t slots) override;
  Status check(std::span<const SlotRecord> slots) const override;

 private:
  enum Queue : uint8_t { kSmall, kMain };
  struct Entry {
    int32_t unit = -1;
    Queue queue = kSmall;
    uint8_t uses = 0;  // since it was queued, at most 3
    bool held = false;
  };
  struct Size {
    int64_t all = 0;
    int64_t free = 0;  // not held
  };

  void enqueue(Queue queue, int32_t slot);
  void dequeue(int32_t slot);
  uint16_t now() const;
  bool is_ghost(int32_t unit) const;

  std::vector<uint16_t> left_at_;  // by unit; 0: not a ghost
  std::vector<Entry> entries_;
  SlotLists queues_;
  std::array<Size, 2> sizes_{};
  int64_t small_slots_ = 0;
  int64_t ghost_step_ = 1;
  int64_t evictions_ = 0;  // from the small queue
};

}  // namespace stoke::cache
