#include "cache/lfu.h"

#include <algorithm>

namespace stoke::cache {

LfuPolicy::LfuPolicy(int64_t units, int64_t slots) : counts_(units), lists_(slots, kBuckets) {}

size_t LfuPolicy::bytes(int64_t units, int64_t slots) {
  return units * sizeof(uint16_t) + SlotLists::bytes(slots, kBuckets);
}

void LfuPolicy::touch(int32_t unit, int32_t, int64_t uses) {
  // A listed slot would lie in the wrong bucket now: but whoever uses it holds it.
  counts_[unit] = static_cast<uint16_t>(std::min<int64_t>(counts_[unit] + uses, UINT16_MAX));
  sum_ += uses;
  if (sum_ >= kMeanUses * static_cast<int64_t>(counts_.size())) age();
}

int LfuPolicy::lowest() const {
  if (filled_[0] != 0) return std::countr_zero(filled_[0]);
  return filled_[1] != 0 ? 64 + std::countr_zero(filled_[1]) : -1;
}

int32_t LfuPolicy::evict(int32_t unit, bool must) {
  const int b = lowest();
  if (b < 0 || (!must && bucket(counts_[unit]) <= b)) return -1;
  const int32_t victim = lists_.front(b);
  unlink(victim);
  return victim;
}

void LfuPolicy::age() {
  for (uint16_t& count : counts_) count /= 2;
  sum_ /= 2;
  filled_ = {};
  for (int b = 0; b < kBuckets; ++b) {
    // Ascending: what stood in the target has already moved on.
    const int to = halved(b);
    if (to != b) lists_.append(to, b);
    if (!lists_.empty(to)) filled_[to / 64] |= uint64_t{1} << (to % 64);
  }
}

Status LfuPolicy::check(std::span<const SlotRecord> slots) const {
  int64_t expected = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (lists_.linked(static_cast<int32_t>(i)) != slots[i].evictable()) {
      return Status(Code::kCorrupt, "lfu: a slot is listed though held, or not though free to go");
    }
    expected += slots[i].evictable() ? 1 : 0;
  }
  for (int b = 0; b < kBuckets; ++b) {
    if (lists_.empty(b) == ((filled_[b / 64] >> (b % 64) & 1) != 0)) return Status(Code::kCorrupt, "lfu: a wrong bit");
    for (int32_t slot = lists_.front(b); slot >= 0; slot = lists_.next(slot), --expected) {
      if (bucket(counts_[slots[slot].unit]) != b) return Status(Code::kCorrupt, "lfu: a slot in a wrong bucket");
    }
  }
  return expected == 0 ? ok_status() : Status(Code::kCorrupt, "lfu: the lists have lost slots");
}

}  // namespace stoke::cache
