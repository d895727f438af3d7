#include "cache/unit_cache.h"

#include "base/check.h"

namespace stoke::cache {

struct UnitCache::Impl {
  CacheOptions options;
  int64_t slots = 0;
  struct Slot {
    UnitId unit;
    State state = State::kFree;
    int leases = 0;
    bool pinned = false;
    uint64_t used = 0;
  };
  std::vector<Slot> slot;
  std::vector<int32_t> where;
  CacheCounts counts;
  uint64_t tick = 0;
};

UnitCache::UnitCache(const CacheOptions& o) : impl_(std::make_unique<Impl>()) {
  impl_->options = o;
  impl_->slots = o.slots;
  impl_->slot.resize(static_cast<size_t>(o.slots));
  impl_->where.assign(static_cast<size_t>(o.units), -1);
}
UnitCache::~UnitCache() = default;
size_t UnitCache::bookkeeping_bytes(const CacheOptions& o) { return static_cast<size_t>(o.units * 8 + o.slots * 48); }
SlotId UnitCache::find(UnitId u) { return find(u, 1); }
SlotId UnitCache::find(UnitId u, int64_t) {
  const int32_t s = impl_->where[static_cast<size_t>(u.index)];
  if (s < 0 || impl_->slot[static_cast<size_t>(s)].state != State::kReady) {
    ++impl_->counts.misses;
    return {};
  }
  ++impl_->counts.hits;
  auto& slot = impl_->slot[static_cast<size_t>(s)];
  ++slot.leases;
  slot.used = ++impl_->tick;
  return {s};
}
UnitCache::State UnitCache::state(UnitId u) const {
  const int32_t s = impl_->where[static_cast<size_t>(u.index)];
  return s < 0 ? State::kFree : impl_->slot[static_cast<size_t>(s)].state;
}
SlotId UnitCache::reserve(UnitId u, bool) {
  CHECK(state(u) == State::kFree);
  int32_t best = -1;
  for (int32_t i = 0; i < impl_->slots; ++i) {
    auto& s = impl_->slot[static_cast<size_t>(i)];
    if (s.state == State::kFree) {
      best = i;
      break;
    }
    if (s.state != State::kReady || s.leases > 0 || s.pinned) continue;
    if (best < 0 || s.used < impl_->slot[static_cast<size_t>(best)].used) best = i;
  }
  if (best < 0) return {};
  auto& s = impl_->slot[static_cast<size_t>(best)];
  if (s.state == State::kReady) {
    impl_->where[static_cast<size_t>(s.unit.index)] = -1;
    ++impl_->counts.evictions;
  }
  s = {.unit = u, .state = State::kLoading, .used = ++impl_->tick};
  impl_->where[static_cast<size_t>(u.index)] = best;
  return {best};
}
void UnitCache::commit(SlotId id, bool lease) {
  auto& s = impl_->slot[static_cast<size_t>(id.index)];
  CHECK(s.state == State::kLoading);
  s.state = State::kReady;
  s.leases = lease ? 1 : 0;
}
void UnitCache::abandon(SlotId id) {
  auto& s = impl_->slot[static_cast<size_t>(id.index)];
  CHECK(s.state == State::kLoading);
  impl_->where[static_cast<size_t>(s.unit.index)] = -1;
  s = {};
}
void UnitCache::release(SlotId id) {
  auto& s = impl_->slot[static_cast<size_t>(id.index)];
  CHECK(s.leases > 0);
  --s.leases;
}
void UnitCache::drop(UnitId u) {
  const int32_t i = impl_->where[static_cast<size_t>(u.index)];
  CHECK(i >= 0);
  auto& s = impl_->slot[static_cast<size_t>(i)];
  CHECK(s.state == State::kReady && s.leases == 0);
  impl_->where[static_cast<size_t>(u.index)] = -1;
  s = {};
}
void UnitCache::pin(UnitId u, bool p) {
  const int32_t i = impl_->where[static_cast<size_t>(u.index)];
  CHECK(i >= 0);
  impl_->slot[static_cast<size_t>(i)].pinned = p;
}
std::byte* UnitCache::data(SlotId s) const {
  return impl_->options.arena + static_cast<size_t>(s.index) * impl_->options.slot_bytes;
}
UnitId UnitCache::unit(SlotId s) const { return impl_->slot[static_cast<size_t>(s.index)].unit; }
int64_t UnitCache::slots() const { return impl_->slots; }
int64_t UnitCache::resize(int64_t n) { return impl_->slots = n; }
const CacheCounts& UnitCache::counts() const { return impl_->counts; }

}  // namespace stoke::cache
