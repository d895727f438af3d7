// A seeded random walk over a cache, beside a naive model made of maps; 10^6 operations (four seeds) for every policy.
// The model does not know which victim a policy picks: it checks that the pick was allowed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "cache/unit_cache.h"

namespace stoke::cache {
namespace {

constexpr int64_t kUnits = 300;
constexpr int64_t kSlots = 64;
constexpr size_t kSlotBytes = 8;

class Walk {
 public:
  Walk(PolicyKind policy, int64_t recent, uint32_t seed)
      : policy_(policy),
        random_(seed),
        arena_(kSlots * kSlotBytes),
        cache_({.units = kUnits,
                .slots = kSlots,
                .slot_bytes = kSlotBytes,
                .arena = arena_.data(),
                .policy = policy,
                .recent = recent}) {}

  void step() {
    const int what = below(100);
    if (below(50) == 0) cache_.end_pass();
    if (what < 45)
      find_or_reserve();
    else if (what < 60)
      end_loading();
    else if (what < 88)
      release();
    else if (what < 92)
      drop();
    else if (what < 98)
      pin();
    else if (below(20) == 0)
      resize();
  }

  void verify() {
    const Status status = cache_.check();
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cache_.slots(), slots_);
    ASSERT_EQ(cache_.free_slots(), slots_ - static_cast<int64_t>(model_.size()));
    ASSERT_EQ(cache_.counts().hits, hits_);
    ASSERT_EQ(cache_.counts().misses, misses_);
    ASSERT_EQ(cache_.counts().evictions, evictions_);
    for (int32_t unit = 0; unit < kUnits; ++unit) {
      const auto it = model_.find(unit);
      ASSERT_EQ(cache_.state({unit}), it == model_.end() ? UnitCache::State::kFree : it->second.state);
      if (it == model_.end()) continue;
      ASSERT_EQ(cache_.unit(it->second.slot), UnitId{unit});
      ASSERT_EQ(cache_.leases(it->second.slot), it->second.leases);
    }
  }

 private:
  struct Held {
    SlotId slot;
    UnitCache::State state = UnitCache::State::kLoading;
    int leases = 0;
    bool pinned = false;

    bool evictable() const { return state == UnitCache::State::kReady && leases == 0 && !pinned; }
  };

  int below(int n) { return static_cast<int>(random_() % n); }
  // Half of the uses go to a tenth of the units.
  int32_t any_unit() { return below(2) == 0 ? below(kUnits / 10) : below(kUnits); }
  // Some unit that has a slot, or end().
  std::map<int32_t, Held>::iterator any_held() {
    auto it = model_.lower_bound(below(kUnits));
    return it == model_.end() ? model_.begin() : it;
  }

  void find_or_reserve() {
    const int32_t unit = any_unit();
    const int64_t uses = below(8) == 0 ? below(600) : 1;
    const SlotId found = cache_.find({unit}, uses);
    const auto it = model_.find(unit);
    if (it != model_.end() && it->second.state == UnitCache::State::kReady) {
      ASSERT_EQ(found, it->second.slot);
      int32_t content = 0;
      std::memcpy(&content, cache_.data(found), sizeof(content));
      ASSERT_EQ(content, unit);
      ++it->second.leases;
      hits_ += uses;
      return;
    }
    ASSERT_FALSE(found.valid());
    misses_ += uses;
    if (it == model_.end()) reserve(unit);
  }

  void reserve(int32_t unit) {
    const bool must = below(2) == 0;
    const bool room = static_cast<int64_t>(model_.size()) < slots_;
    bool victims = false;
    for (const auto& [_, held] : model_) victims = victims || held.evictable();
    const SlotId slot = cache_.reserve({unit}, must);
    if (room || (must && victims && policy_ != PolicyKind::kNone)) {
      ASSERT_TRUE(slot.valid());
    }
    if (!room && !victims) {
      ASSERT_FALSE(slot.valid());
    }
    if (!slot.valid()) return;
    for (auto it = model_.begin(); it != model_.end(); ++it) {
      if (it->second.slot != slot) continue;
      ASSERT_TRUE(!room && it->second.evictable());
      ++evictions_;
      model_.erase(it);
      break;
    }
    model_[unit] = {.slot = slot};
  }

  void end_loading() {
    const auto it = any_held();
    if (it == model_.end() || it->second.state != UnitCache::State::kLoading) return;
    if (below(10) == 0) {
      cache_.abandon(it->second.slot);
      model_.erase(it);
      return;
    }
    std::memcpy(cache_.data(it->second.slot), &it->first, sizeof(it->first));
    it->second.leases = below(2);
    it->second.state = UnitCache::State::kReady;
    cache_.commit(it->second.slot, it->second.leases == 1);
  }

  void release() {
    const auto it = any_held();
    if (it == model_.end() || it->second.leases == 0) return;
    --it->second.leases;
    cache_.release(it->second.slot);
  }

  void drop() {
    const auto it = any_held();
    if (it == model_.end() || it->second.state != UnitCache::State::kReady || it->second.leases > 0) return;
    cache_.drop({it->first});
    model_.erase(it);
  }

  void pin() {
    const auto it = any_held();
    if (it == model_.end()) return;
    it->second.pinned = below(4) == 0;
    cache_.pin({it->first}, it->second.pinned);
  }

  void resize() {
    const int64_t wanted = below(3) == 0 ? kSlots : below(kSlots + 1);
    std::map<int32_t, int32_t> unit_at;
    for (const auto& [unit, held] : model_) unit_at[held.slot.index] = unit;
    while (slots_ > wanted) {
      const auto last = unit_at.find(static_cast<int32_t>(slots_ - 1));
      if (last != unit_at.end()) {
        if (!model_.at(last->second).evictable()) break;
        model_.erase(last->second);
        ++evictions_;
      }
      --slots_;
    }
    slots_ = std::max(slots_, wanted);
    ASSERT_EQ(cache_.resize(wanted), slots_);
  }

  PolicyKind policy_;
  std::mt19937 random_;
  std::vector<std::byte> arena_;
  UnitCache cache_;
  std::map<int32_t, Held> model_;
  int64_t slots_ = kSlots;
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
  uint64_t evictions_ = 0;
};

class CacheWalk : public testing::TestWithParam<std::pair<PolicyKind, int64_t>> {};

TEST_P(CacheWalk, AgreesWithANaiveModel) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Walk walk(GetParam().first, GetParam().second, seed);
    for (int i = 0; i < 250'000; ++i) {
      walk.step();
      if (i % 997 == 0) walk.verify();
      if (testing::Test::HasFatalFailure()) return;
    }
    walk.verify();
  }
}

constexpr int64_t kRecent = 20;
INSTANTIATE_TEST_SUITE_P(Kinds, CacheWalk,
                         testing::Values(std::pair(PolicyKind::kNone, 0), std::pair(PolicyKind::kLru, 0),
                                         std::pair(PolicyKind::kS3Fifo, 0), std::pair(PolicyKind::kLfu, 0),
                                         std::pair(PolicyKind::kLfu, kRecent)));

}  // namespace
}  // namespace stoke::cache
