// Least frequently used, with ageing, and admission by frequency: stays near the best static set of a skewed trace.
//
// Every unit, cached or not, has a 16-bit count of its uses. A unit that is not cached comes in only where its count
// exceeds the victim's; so neurons that fire once in a while flow past the cache and do not flush it, as they do in
// LRU. The slots nobody holds lie in buckets by count: exact below 16, eighths of an octave above (112 in all), oldest
// release first. The victim is the first of the lowest bucket. At the end of a pass in which counts have grown to an
// average of kMeanUses they are all halved; halving maps buckets onto buckets, so lists are only joined. With `recent`
// (CacheOptions), the slots released last wait in a queue of that length before they go to a bucket, and every unit is
// admitted: what a token used is there for the next, and what repeats itself hits. Thread role, ownership and errors:
// see policy.h.
#pragma once

#include <array>
#include <bit>
#include <vector>

#include "cache/policy.h"
#include "cache/slot_lists.h"

namespace stoke::cache {

class LfuPolicy final : public Policy {
 public:
  explicit LfuPolicy(const CacheOptions& options);
  static size_t bytes(const CacheOptions& options);

  void admit(int32_t unit, int32_t slot) override { resume(unit, slot); }
  void touch(int32_t unit, int32_t slot, int64_t uses) override;
  int32_t evict(int32_t unit, bool must) override;
  void remove(int32_t slot) override { unlink(slot); }
  void hold(int32_t slot) override { unlink(slot); }
  void resume(int32_t unit, int32_t slot) override;
  void end_pass() override;
  void resize(int64_t slots) override;
  Status check(std::span<const SlotRecord> slots) const override;

 private:
  static constexpr int kBuckets = 112;
  static constexpr int kRecent = kBuckets;  // the queue's list, behind the buckets
  static constexpr int64_t kMeanUses =
      16;  // of a unit; 32 gains 0.1 to 0.2 points, but follows a change of subject later

  static int bucket(uint32_t count) {
    const int octave = count < 16 ? 0 : std::bit_width(count) - 4;
    return 8 * octave + static_cast<int>(count >> octave);
  }
  static int halved(int bucket) { return bucket < 16 ? bucket / 2 : bucket - 8; }

  void link(int32_t unit, int32_t slot);
  void unlink(int32_t slot);
  void trim_recent();
  int lowest() const;
  void age();

  std::vector<uint16_t> counts_;  // of all units
  SlotLists lists_;
  std::array<uint64_t, 2> filled_{};  // a bit for each bucket that is not empty
  std::vector<int32_t> recent_unit_;  // by slot: its unit while in the queue, or -1; no table without a queue
  int64_t recent_wanted_ = 0;
  int64_t recent_most_ = 0;
  int64_t recent_size_ = 0;
  int64_t sum_ = 0;  // of uses since the beginning, halved when counts are
};

}  // namespace stoke::cache
