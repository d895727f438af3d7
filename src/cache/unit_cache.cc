#include "cache/unit_cache.h"

#include <algorithm>
#include <limits>

#include "cache/policy.h"

namespace stoke::cache {

struct UnitCache::Impl {
  CacheOptions options;
  std::vector<int32_t> slot_of;     // by unit; -1: none
  std::vector<SlotRecord> records;  // all of the arena's slots; those from `slots` on are given up
  std::vector<int32_t> free;        // a stack
  std::unique_ptr<Policy> policy;
  int64_t slots = 0;
  CacheCounts counts;

  explicit Impl(const CacheOptions& o)
      : options(o), slot_of(o.units, -1), records(o.slots), policy(make_policy(o)), slots(o.slots) {
    free.reserve(o.slots);
    list_free_slots();
  }

  // Low slots on top: the end of the arena, which shrinking gives up, fills last.
  void list_free_slots() {
    free.clear();
    for (int64_t i = slots - 1; i >= 0; --i) {
      if (records[i].state == State::kFree) free.push_back(static_cast<int32_t>(i));
    }
  }
  int32_t slot_for(UnitId unit) const {
    CHECK(unit.index >= 0 && unit.index < options.units);
    return slot_of[unit.index];
  }
  SlotRecord& at(SlotId slot) {
    CHECK(slot.index >= 0 && slot.index < slots);
    return records[slot.index];
  }
  void track(int32_t slot) {
    policy->admit(records[slot].unit, slot);
    if (records[slot].leases > 0) policy->hold(slot);
  }
  // Out of the tables, but not onto the free stack.
  void forget(int32_t slot) {
    slot_of[records[slot].unit] = -1;
    records[slot] = {};
  }
  void evict(int32_t slot) {
    policy->remove(slot);
    forget(slot);
    ++counts.evictions;
  }
};

UnitCache::UnitCache(const CacheOptions& options) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 1024;  // slot lists have heads behind the slots
  CHECK(options.units >= 0 && options.units <= kMost && options.slots >= 0 && options.slots <= kMost &&
        options.recent >= 0);
  impl_ = std::make_unique<Impl>(options);
}

UnitCache::~UnitCache() = default;

size_t UnitCache::bookkeeping_bytes(const CacheOptions& options) {
  return sizeof(Impl) + options.units * sizeof(int32_t) + options.slots * (sizeof(SlotRecord) + sizeof(int32_t)) +
         policy_bytes(options);
}

SlotId UnitCache::find(UnitId unit) { return find(unit, 1); }

SlotId UnitCache::find(UnitId unit, int64_t uses) {
  CHECK(uses >= 0);
  Impl& impl = *impl_;
  const int32_t slot = impl.slot_for(unit);
  if (slot < 0 || impl.records[slot].state != State::kReady) {
    impl.policy->touch(unit.index, -1, uses);
    impl.counts.misses += uses;
    return {};
  }
  SlotRecord& record = impl.records[slot];
  CHECK(record.leases < std::numeric_limits<uint16_t>::max());
  if (record.leases++ == 0 && !record.pinned) impl.policy->hold(slot);
  impl.policy->touch(unit.index, record.pinned ? -1 : slot, uses);
  impl.counts.hits += uses;
  return {slot};
}

UnitCache::State UnitCache::state(UnitId unit) const {
  const int32_t slot = impl_->slot_for(unit);
  return slot < 0 ? State::kFree : impl_->records[slot].state;
}

SlotId UnitCache::reserve(UnitId unit, bool must) {
  Impl& impl = *impl_;
  CHECK(impl.slot_for(unit) < 0);
  int32_t slot = -1;
  if (!impl.free.empty()) {
    slot = impl.free.back();
    impl.free.pop_back();
  } else {
    slot = impl.policy->evict(unit.index, must);
    if (slot < 0) {
      ++impl.counts.refused;
      return {};
    }
    impl.forget(slot);
    ++impl.counts.evictions;
  }
  impl.records[slot] = {.unit = unit.index, .state = State::kLoading};
  impl.slot_of[unit.index] = slot;
  return {slot};
}

void UnitCache::commit(SlotId slot, bool lease) {
  SlotRecord& record = impl_->at(slot);
  CHECK(record.state == State::kLoading);
  record.state = State::kReady;
  record.leases = lease ? 1 : 0;
  if (!record.pinned) impl_->track(slot.index);
}

void UnitCache::abandon(SlotId slot) {
  CHECK(impl_->at(slot).state == State::kLoading);
  impl_->forget(slot.index);
  impl_->free.push_back(slot.index);
}

void UnitCache::release(SlotId slot) {
  SlotRecord& record = impl_->at(slot);
  CHECK(record.state == State::kReady && record.leases > 0);
  if (--record.leases == 0 && !record.pinned) impl_->policy->resume(record.unit, slot.index);
}

void UnitCache::drop(UnitId unit) {
  const int32_t slot = impl_->slot_for(unit);
  CHECK(slot >= 0);
  CHECK(impl_->records[slot].state == State::kReady && impl_->records[slot].leases == 0);
  impl_->policy->remove(slot);
  impl_->forget(slot);
  impl_->free.push_back(slot);
}

void UnitCache::pin(UnitId unit, bool pinned) {
  const int32_t slot = impl_->slot_for(unit);
  CHECK(slot >= 0);
  SlotRecord& record = impl_->records[slot];
  if (record.pinned == pinned) return;
  record.pinned = pinned;
  if (record.state != State::kReady) return;  // commit() will look
  if (pinned) {
    impl_->policy->remove(slot);
  } else {
    impl_->track(slot);
  }
}

void UnitCache::end_pass() { impl_->policy->end_pass(); }

std::byte* UnitCache::data(SlotId slot) const {
  impl_->at(slot);
  return impl_->options.arena + slot.index * impl_->options.slot_bytes;
}

UnitId UnitCache::unit(SlotId slot) const { return {impl_->at(slot).unit}; }
int UnitCache::leases(SlotId slot) const { return impl_->at(slot).leases; }
int64_t UnitCache::slots() const { return impl_->slots; }
int64_t UnitCache::free_slots() const { return static_cast<int64_t>(impl_->free.size()); }
const CacheCounts& UnitCache::counts() const { return impl_->counts; }
void UnitCache::reset_counts() { impl_->counts = {}; }

int64_t UnitCache::resize(int64_t slots) {
  Impl& impl = *impl_;
  CHECK(slots >= 0 && slots <= impl.options.slots);
  for (; impl.slots > slots; --impl.slots) {
    const SlotRecord& last = impl.records[impl.slots - 1];
    if (last.state != State::kFree && !last.evictable()) break;
    if (last.state == State::kReady) impl.evict(static_cast<int32_t>(impl.slots - 1));
  }
  impl.slots = std::max(impl.slots, slots);
  impl.list_free_slots();
  impl.policy->resize(impl.slots);
  return impl.slots;
}

Status UnitCache::check() const {
  const Impl& impl = *impl_;
  int64_t free = 0;
  int64_t used = 0;
  for (size_t i = 0; i < impl.records.size(); ++i) {
    const SlotRecord& record = impl.records[i];
    const bool inside = static_cast<int64_t>(i) < impl.slots;
    free += inside && record.state == State::kFree ? 1 : 0;
    if (record.state == State::kFree) {
      if (record.unit >= 0 || record.leases > 0 || record.pinned)
        return Status(Code::kCorrupt, "a free slot is in use");
      continue;
    }
    ++used;
    if (!inside) return Status(Code::kCorrupt, "a slot beyond the end is in use");
    if (impl.slot_of[record.unit] != static_cast<int32_t>(i))
      return Status(Code::kCorrupt, "a slot's unit lies elsewhere");
    if (record.state == State::kLoading && record.leases > 0) return Status(Code::kCorrupt, "a loading slot is leased");
  }
  for (const int32_t slot : impl.free) {
    if (slot >= impl.slots || impl.records[slot].state != State::kFree)
      return Status(Code::kCorrupt, "a wrong free slot");
  }
  if (free != free_slots()) return Status(Code::kCorrupt, "the stack of free slots is not as long as they are many");
  const int64_t placed = std::count_if(impl.slot_of.begin(), impl.slot_of.end(), [](int32_t s) { return s >= 0; });
  if (placed != used) return Status(Code::kCorrupt, "a unit has a slot that is not its own");
  return impl.policy->check(std::span(impl.records).first(impl.slots));
}

}  // namespace stoke::cache
