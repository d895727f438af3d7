#include "cache/s3_fifo.h"

#include <algorithm>

namespace stoke::cache {
namespace {

constexpr int64_t kGhostSteps = 64;

}  // namespace

S3FifoPolicy::S3FifoPolicy(int64_t units, int64_t slots) : left_at_(units), entries_(slots), queues_(slots, 2) {
  resize(slots);
}

size_t S3FifoPolicy::bytes(int64_t units, int64_t slots) {
  return units * sizeof(uint16_t) + slots * sizeof(Entry) + SlotLists::bytes(slots, 2);
}

void S3FifoPolicy::resize(int64_t slots) {
  small_slots_ = std::max<int64_t>(slots / 10, 1);
  ghost_step_ = std::max<int64_t>(slots / kGhostSteps, 1);
}

void S3FifoPolicy::enqueue(Queue queue, int32_t slot) {
  entries_[slot].queue = queue;
  queues_.push_back(queue, slot);
  ++sizes_[queue].all;
  sizes_[queue].free += entries_[slot].held ? 0 : 1;
}

void S3FifoPolicy::dequeue(int32_t slot) {
  if (!queues_.linked(slot)) return;
  queues_.unlink(slot);
  Size& size = sizes_[entries_[slot].queue];
  --size.all;
  size.free -= entries_[slot].held ? 0 : 1;
}

// Never 0, which stands for "no ghost".
uint16_t S3FifoPolicy::now() const { return static_cast<uint16_t>(evictions_ / ghost_step_ % UINT16_MAX + 1); }

bool S3FifoPolicy::is_ghost(int32_t unit) const {
  if (left_at_[unit] == 0) return false;
  const int ago = static_cast<int>(now()) - left_at_[unit];
  return (ago >= 0 ? ago : ago + UINT16_MAX) <= kGhostSteps;
}

void S3FifoPolicy::admit(int32_t unit, int32_t slot) {
  const bool ghost = is_ghost(unit);
  left_at_[unit] = 0;
  entries_[slot] = {.unit = unit};
  enqueue(ghost ? kMain : kSmall, slot);
}

void S3FifoPolicy::touch(int32_t, int32_t slot, int64_t uses) {
  if (slot < 0) return;
  Entry& entry = entries_[slot];
  entry.uses = static_cast<uint8_t>(std::min<int64_t>(entry.uses + uses, 3));
}

int32_t S3FifoPolicy::evict(int32_t, bool) {
  // Ends: every step takes a slot out of the small queue or a use off one in main, where at least one is free to go.
  while (sizes_[kSmall].free + sizes_[kMain].free > 0) {
    const bool small = sizes_[kSmall].all >= small_slots_ || sizes_[kMain].free == 0;
    const int32_t slot = queues_.front(small ? kSmall : kMain);
    Entry& entry = entries_[slot];
    const Queue queue = entry.queue;
    dequeue(slot);
    const bool stays = entry.held || entry.uses > (queue == kSmall ? 1 : 0);
    if (!stays) {
      if (queue == kSmall) {
        left_at_[entry.unit] = now();
        ++evictions_;
      }
      return slot;
    }
    entry.uses = static_cast<uint8_t>(queue == kSmall || entry.uses == 0 ? 0 : entry.uses - 1);
    enqueue(kMain, slot);
  }
  return -1;
}

void S3FifoPolicy::remove(int32_t slot) { dequeue(slot); }

void S3FifoPolicy::hold(int32_t slot) {
  entries_[slot].held = true;
  --sizes_[entries_[slot].queue].free;
}

void S3FifoPolicy::resume(int32_t, int32_t slot) {
  entries_[slot].held = false;
  ++sizes_[entries_[slot].queue].free;
}

Status S3FifoPolicy::check(std::span<const SlotRecord> slots) const {
  for (size_t i = 0; i < slots.size(); ++i) {
    const SlotRecord& slot = slots[i];
    if (queues_.linked(static_cast<int32_t>(i)) != slot.tracked()) {
      return Status(Code::kCorrupt, "s3-fifo: a slot is queued though it is not ready, or not though it is");
    }
    const Entry& entry = entries_[i];
    if (slot.tracked() && (entry.held != (slot.leases > 0) || entry.unit != slot.unit)) {
      return Status(Code::kCorrupt, "s3-fifo: a queued slot's lease or unit is not the cache's");
    }
  }
  for (const Queue queue : {kSmall, kMain}) {
    Size size = sizes_[queue];
    for (int32_t slot = queues_.front(queue); slot >= 0; slot = queues_.next(slot)) {
      if (entries_[slot].queue != queue) return Status(Code::kCorrupt, "s3-fifo: a slot in a wrong queue");
      --size.all;
      size.free -= entries_[slot].held ? 0 : 1;
    }
    if (size.all != 0 || size.free != 0) return Status(Code::kCorrupt, "s3-fifo: a queue's size is not its length");
  }
  return ok_status();
}

}  // namespace stoke::cache
