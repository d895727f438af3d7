// What every policy must keep, and what sets each apart.
#include "cache/unit_cache.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace stoke::cache {
namespace {

constexpr size_t kSlotBytes = 16;

struct Arena {
  explicit Arena(PolicyKind policy, int64_t units, int64_t slots) : bytes(slots * kSlotBytes) {
    options = {.units = units, .slots = slots, .slot_bytes = kSlotBytes, .arena = bytes.data(), .policy = policy};
  }
  std::vector<std::byte> bytes;
  CacheOptions options;
};

// Uses a unit as a pipeline does, reading it where it is missing. Whether it was a hit.
bool use(UnitCache& cache, int32_t index, bool must = false) {
  const UnitId unit{index};
  if (const SlotId slot = cache.find(unit); slot.valid()) {
    cache.release(slot);
    return true;
  }
  if (const SlotId slot = cache.reserve(unit, must); slot.valid()) cache.commit(slot, false);
  return false;
}

bool ready(const UnitCache& cache, int32_t unit) { return cache.state({unit}) == UnitCache::State::kReady; }

class EveryPolicy : public testing::TestWithParam<PolicyKind> {
 protected:
  EveryPolicy() : arena_(GetParam(), 100, 8), cache_(arena_.options) {}
  ~EveryPolicy() override { EXPECT_TRUE(cache_.check().ok()) << cache_.check().message(); }

  bool evicts() const { return GetParam() != PolicyKind::kNone; }

  Arena arena_;
  UnitCache cache_;
};

TEST_P(EveryPolicy, FillsFreeSlotsFirst) {
  for (int32_t unit = 0; unit < 8; ++unit) EXPECT_FALSE(use(cache_, unit));
  for (int32_t unit = 0; unit < 8; ++unit) EXPECT_TRUE(use(cache_, unit));
  EXPECT_EQ(cache_.free_slots(), 0);
  EXPECT_EQ(cache_.counts().hits, 8U);
  EXPECT_EQ(cache_.counts().misses, 8U);
  EXPECT_EQ(cache_.counts().evictions, 0U);
}

TEST_P(EveryPolicy, SlotsAreApartInsideTheArena) {
  for (int32_t unit = 0; unit < 8; ++unit) {
    const SlotId slot = cache_.reserve({unit}, true);
    EXPECT_EQ(cache_.data(slot), arena_.bytes.data() + slot.index * kSlotBytes);
    EXPECT_EQ(cache_.unit(slot), UnitId{unit});
    cache_.commit(slot, false);
  }
}

TEST_P(EveryPolicy, MustEvictsWherePolicyEvictsAtAll) {
  for (int32_t unit = 0; unit < 8; ++unit) use(cache_, unit);
  EXPECT_EQ(cache_.reserve({8}, true).valid(), evicts());
  EXPECT_EQ(cache_.counts().evictions, evicts() ? 1U : 0U);
  EXPECT_EQ(cache_.counts().refused, evicts() ? 0U : 1U);
}

TEST_P(EveryPolicy, LoadingIsAMissWithAState) {
  const SlotId slot = cache_.reserve({3}, false);
  EXPECT_EQ(cache_.state({3}), UnitCache::State::kLoading);
  EXPECT_FALSE(cache_.find({3}).valid());
  cache_.commit(slot, true);
  EXPECT_EQ(cache_.leases(slot), 1);
  EXPECT_EQ(cache_.find({3}), slot);
  EXPECT_EQ(cache_.leases(slot), 2);
}

TEST_P(EveryPolicy, AbandonedSlotIsFreeAgain) {
  cache_.abandon(cache_.reserve({3}, false));
  EXPECT_EQ(cache_.state({3}), UnitCache::State::kFree);
  EXPECT_EQ(cache_.free_slots(), 8);
}

TEST_P(EveryPolicy, LeasedAndLoadingAreNeverVictims) {
  for (int32_t unit = 0; unit < 4; ++unit) cache_.commit(cache_.reserve({unit}, true), true);
  for (int32_t unit = 4; unit < 8; ++unit) cache_.reserve({unit}, true);
  EXPECT_FALSE(cache_.reserve({8}, true).valid());
  const SlotId second = cache_.find({1});
  cache_.release(second);
  EXPECT_FALSE(cache_.reserve({8}, true).valid());
  cache_.release(second);
  EXPECT_EQ(cache_.reserve({8}, true), evicts() ? second : SlotId{});
}

TEST_P(EveryPolicy, PinnedAreNeverVictims) {
  for (int32_t unit = 0; unit < 8; ++unit) use(cache_, unit);
  for (int32_t unit = 0; unit < 7; ++unit) cache_.pin({unit}, true);
  for (int32_t unit = 8; unit < 50; ++unit) use(cache_, unit, true);
  for (int32_t unit = 0; unit < 7; ++unit) EXPECT_TRUE(ready(cache_, unit));
  EXPECT_EQ(ready(cache_, 7), !evicts());
  cache_.pin({3}, false);
  for (int32_t unit = 8; unit < 50; ++unit) use(cache_, unit, true);
  EXPECT_EQ(ready(cache_, 3), !evicts());
}

TEST_P(EveryPolicy, PinHoldsFromLoadingOnAndAcrossLeases) {
  const SlotId slot = cache_.reserve({0}, true);
  cache_.pin({0}, true);
  cache_.commit(slot, true);
  cache_.release(slot);
  for (int32_t unit = 1; unit < 50; ++unit) use(cache_, unit, true);
  EXPECT_EQ(cache_.find({0}), slot);
  cache_.pin({0}, false);  // while leased
  for (int32_t unit = 1; unit < 50; ++unit) use(cache_, unit, true);
  EXPECT_TRUE(ready(cache_, 0));
  cache_.release(slot);
}

TEST_P(EveryPolicy, DropFreesAtOnce) {
  for (int32_t unit = 0; unit < 8; ++unit) use(cache_, unit);
  cache_.pin({5}, true);
  cache_.drop({5});
  cache_.drop({6});
  EXPECT_EQ(cache_.free_slots(), 2);
  EXPECT_FALSE(ready(cache_, 5));
}

TEST_P(EveryPolicy, UsesCountAsThatManyLookups) {
  EXPECT_FALSE(cache_.find({2}, 5).valid());
  cache_.commit(cache_.reserve({2}, true), false);
  const SlotId slot = cache_.find({2}, 7);
  EXPECT_EQ(cache_.leases(slot), 1);
  EXPECT_EQ(cache_.counts().misses, 5U);
  EXPECT_EQ(cache_.counts().hits, 7U);
  cache_.reset_counts();
  EXPECT_EQ(cache_.counts().hits, 0U);
}

TEST_P(EveryPolicy, ShrinkingEvictsFromTheEndAndStopsAtWhatIsHeld) {
  for (int32_t unit = 0; unit < 8; ++unit) use(cache_, unit);
  EXPECT_EQ(cache_.resize(6), 6);
  EXPECT_EQ(cache_.slots(), 6);
  const SlotId held = cache_.find({4});  // slots were given out from the start of the arena
  EXPECT_EQ(held, SlotId{4});
  EXPECT_EQ(cache_.resize(0), 5);
  cache_.release(held);
  cache_.pin({2}, true);
  EXPECT_EQ(cache_.resize(0), 3);
  cache_.pin({2}, false);
  EXPECT_EQ(cache_.resize(0), 0);
  EXPECT_FALSE(cache_.reserve({9}, true).valid());
  EXPECT_EQ(cache_.resize(8), 8);
  EXPECT_EQ(cache_.free_slots(), 8);
  for (int32_t unit = 0; unit < 8; ++unit) use(cache_, unit);
  EXPECT_TRUE(use(cache_, 7));
}

TEST_P(EveryPolicy, BookkeepingCoversAtLeastTheTables) {
  EXPECT_GE(UnitCache::bookkeeping_bytes(arena_.options), 100 * 4 + 8 * 12);
  CacheOptions big = arena_.options;
  big.units = 4'000'000;
  big.slots = 1'000'000;
  EXPECT_LE(UnitCache::bookkeeping_bytes(big), 6U * 4'000'000 + 32U * 1'000'000);
}

using EveryPolicyDeath = EveryPolicy;

TEST_P(EveryPolicyDeath, MisuseStops) {
  cache_.commit(cache_.reserve({1}, true), true);
  const SlotId slot{0};
  EXPECT_DEATH(cache_.find({100}), "CHECK failed");
  EXPECT_DEATH(cache_.find(UnitId{}), "CHECK failed");
  EXPECT_DEATH(cache_.find({1}, -1), "CHECK failed");
  EXPECT_DEATH(cache_.reserve({1}, true), "CHECK failed");
  EXPECT_DEATH(cache_.commit(slot, false), "CHECK failed");
  EXPECT_DEATH(cache_.abandon(slot), "CHECK failed");
  EXPECT_DEATH(cache_.drop({1}), "CHECK failed");
  EXPECT_DEATH(cache_.drop({2}), "CHECK failed");
  EXPECT_DEATH(cache_.pin({2}, true), "CHECK failed");
  EXPECT_DEATH(cache_.release({7}), "CHECK failed");
  EXPECT_DEATH(cache_.data({8}), "CHECK failed");
  EXPECT_DEATH(cache_.resize(9), "CHECK failed");
  cache_.release(slot);
  EXPECT_DEATH(cache_.release(slot), "CHECK failed");
}

const auto kKinds = testing::Values(PolicyKind::kNone, PolicyKind::kLru, PolicyKind::kS3Fifo, PolicyKind::kLfu);
INSTANTIATE_TEST_SUITE_P(Kinds, EveryPolicy, kKinds);
INSTANTIATE_TEST_SUITE_P(Kinds, EveryPolicyDeath, kKinds);

TEST(Lru, EvictsTheLeastRecentlyReleased) {
  Arena arena(PolicyKind::kLru, 10, 3);
  UnitCache cache(arena.options);
  for (const int32_t unit : {0, 1, 2, 0}) use(cache, unit);
  use(cache, 3);
  EXPECT_FALSE(ready(cache, 1));
  EXPECT_TRUE(ready(cache, 0));
}

TEST(Lru, CyclicScanNeverHits) {
  Arena arena(PolicyKind::kLru, 10, 9);
  UnitCache cache(arena.options);
  for (int32_t i = 0; i < 100; ++i) EXPECT_FALSE(use(cache, i % 10));
}

TEST(Lfu, CyclicScanHitsItsShare) {
  Arena arena(PolicyKind::kLfu, 10, 9);
  UnitCache cache(arena.options);
  int hits = 0;
  for (int32_t i = 0; i < 1000; ++i) hits += use(cache, i % 10) ? 1 : 0;
  EXPECT_GE(hits, 850);
}

TEST(Lfu, RefusesWhatIsUsedLessThanItsVictim) {
  Arena arena(PolicyKind::kLfu, 10, 2);
  UnitCache cache(arena.options);
  for (const int32_t unit : {0, 0, 0, 1, 1}) use(cache, unit);
  EXPECT_FALSE(cache.find({2}).valid());
  EXPECT_FALSE(cache.reserve({2}, false).valid());
  EXPECT_FALSE(cache.find({2}, 2).valid());
  cache.commit(cache.reserve({2}, false), false);
  EXPECT_TRUE(ready(cache, 0));
  EXPECT_FALSE(ready(cache, 1));
  EXPECT_TRUE(cache.reserve({5}, true).valid());
}

TEST(Lfu, AgeingLetsNewFavouritesIn) {
  Arena arena(PolicyKind::kLfu, 8, 2);
  UnitCache cache(arena.options);
  for (int i = 0; i < 1000; ++i) {
    for (const int32_t unit : {0, 1}) use(cache, unit);
    cache.end_pass();
  }
  int passes = 0;
  for (; !ready(cache, 2) && passes < 1000; ++passes) {
    for (const int32_t unit : {2, 3}) use(cache, unit);
    cache.end_pass();
    ASSERT_TRUE(cache.check().ok()) << cache.check().message();
  }
  EXPECT_LT(passes, 100);
}

TEST(Lfu, LongPromptAgesAllLayersAlike) {
  Arena arena(PolicyKind::kLfu, 100, 50);
  UnitCache cache(arena.options);
  // Even units are used 500 times in a prompt, odd ones 300 times.
  for (int32_t unit = 0; unit < 100; ++unit) {
    cache.find({unit}, unit % 2 == 0 ? 500 : 300);
    if (const SlotId slot = cache.reserve({unit}, false); slot.valid()) cache.commit(slot, false);
  }
  cache.end_pass();
  for (int32_t unit = 0; unit < 100; ++unit) use(cache, unit);
  for (int32_t unit = 0; unit < 100; ++unit) EXPECT_EQ(ready(cache, unit), unit % 2 == 0) << unit;
}

TEST(Lfu, RecentUnitsStayForTheNextToken) {
  Arena arena(PolicyKind::kLfu, 100, 8);
  arena.options.recent = 2;
  UnitCache cache(arena.options);
  for (int i = 0; i < 50; ++i) use(cache, i % 8);
  for (const int32_t unit : {20, 21}) EXPECT_FALSE(use(cache, unit));
  for (const int32_t unit : {20, 21}) EXPECT_TRUE(use(cache, unit));
  for (const int32_t unit : {30, 31}) EXPECT_FALSE(use(cache, unit));
  EXPECT_FALSE(use(cache, 22));
  EXPECT_FALSE(ready(cache, 20));  // the favourites stayed
  int kept = 0;
  for (int32_t unit = 0; unit < 8; ++unit) kept += ready(cache, unit) ? 1 : 0;
  EXPECT_GE(kept, 5);
  EXPECT_TRUE(cache.check().ok()) << cache.check().message();
}

TEST(S3Fifo, OneTimersPassThroughTheSmallQueue) {
  Arena arena(PolicyKind::kS3Fifo, 1000, 20);
  UnitCache cache(arena.options);
  for (int round = 0; round < 4; ++round) {
    for (int32_t unit = 0; unit < 16; ++unit) use(cache, unit);
  }
  for (int32_t unit = 100; unit < 500; ++unit) use(cache, unit);
  int kept = 0;
  for (int32_t unit = 0; unit < 16; ++unit) kept += ready(cache, unit) ? 1 : 0;
  EXPECT_GE(kept, 15);
}

}  // namespace
}  // namespace stoke::cache
