#include "cache/lfu.h"

#include <algorithm>

namespace stoke::cache {

LfuPolicy::LfuPolicy(const CacheOptions& options)
    : counts_(options.units),
      lists_(options.slots, kBuckets + 1),
      recent_unit_(options.recent > 0 ? options.slots : 0, -1),
      recent_wanted_(options.recent) {
  resize(options.slots);
}

size_t LfuPolicy::bytes(const CacheOptions& options) {
  return options.units * sizeof(uint16_t) + SlotLists::bytes(options.slots, kBuckets + 1) +
         (options.recent > 0 ? options.slots * sizeof(int32_t) : 0);
}

void LfuPolicy::resize(int64_t slots) {
  recent_most_ = std::min(recent_wanted_, slots / 2);
  trim_recent();
}

void LfuPolicy::link(int32_t unit, int32_t slot) {
  const int b = bucket(counts_[unit]);
  lists_.push_back(b, slot);
  filled_[b / 64] |= uint64_t{1} << (b % 64);
}

void LfuPolicy::unlink(int32_t slot) {
  const int emptied = lists_.unlink(slot);
  if (recent_wanted_ > 0 && recent_unit_[slot] >= 0) {
    recent_unit_[slot] = -1;
    --recent_size_;
  } else if (emptied >= 0) {
    filled_[emptied / 64] &= ~(uint64_t{1} << (emptied % 64));
  }
}

void LfuPolicy::resume(int32_t unit, int32_t slot) {
  if (recent_most_ == 0) return link(unit, slot);
  lists_.push_back(kRecent, slot);
  recent_unit_[slot] = unit;
  ++recent_size_;
  trim_recent();
}

void LfuPolicy::trim_recent() {
  while (recent_size_ > recent_most_) {
    const int32_t oldest = lists_.front(kRecent);
    const int32_t unit = recent_unit_[oldest];
    unlink(oldest);
    link(unit, oldest);
  }
}

void LfuPolicy::touch(int32_t unit, int32_t, int64_t uses) {
  // A listed slot would lie in the wrong bucket now: but whoever uses it holds it.
  counts_[unit] = static_cast<uint16_t>(std::min<int64_t>(counts_[unit] + uses, UINT16_MAX));
  sum_ += uses;
}

void LfuPolicy::end_pass() {
  const int64_t most = kMeanUses * std::max<int64_t>(static_cast<int64_t>(counts_.size()), 1);
  while (sum_ >= most) age();
}

int LfuPolicy::lowest() const {
  if (filled_[0] != 0) return std::countr_zero(filled_[0]);
  return filled_[1] != 0 ? 64 + std::countr_zero(filled_[1]) : -1;
}

int32_t LfuPolicy::evict(int32_t unit, bool must) {
  const int b = lowest();
  if (b >= 0 && !must && recent_most_ == 0 && bucket(counts_[unit]) <= b) return -1;
  const int32_t victim = lists_.front(b >= 0 ? b : kRecent);
  if (victim >= 0) unlink(victim);
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
  int64_t queued = 0;
  for (int32_t slot = lists_.front(kRecent); slot >= 0; slot = lists_.next(slot), --expected, ++queued) {
    if (recent_unit_[slot] != slots[slot].unit) return Status(Code::kCorrupt, "lfu: the queue has a unit wrong");
  }
  if (queued != recent_size_ || queued > recent_most_)
    return Status(Code::kCorrupt, "lfu: a wrong length of the queue");
  return expected == 0 ? ok_status() : Status(Code::kCorrupt, "lfu: the lists have lost slots");
}

}  // namespace stoke::cache
