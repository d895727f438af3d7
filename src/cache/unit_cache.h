// The segment of a neuron cache: one run of equal slots, and which unit lies in which.
//
// A unit is what one read brings and one slot holds: a row block of a matrix, a block of an expert, one cold neuron's
// record. Slot states, changed only here: free -> loading (reserve) -> ready (commit) or free (abandon);
// ready -> leased (find) -> ready (release); ready -> free (evict, drop; never while leased). A unit has at most one
// slot. Bytes are written only while loading and read only under a lease.
// A policy (policy.h) chooses victims and may refuse to admit: reserve() then answers with no slot, and the caller
// reads the unit somewhere else or waits. Pinned units are never victims. Thread role: the control thread alone; no
// locks. Workers read leased bytes. Ownership: the caller owns the arena (the cache is handed its slots' bytes) and all
// I/O is the caller's. After construction nothing is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"

namespace stoke::cache {

struct UnitId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
  friend bool operator==(UnitId, UnitId) = default;
};
struct SlotId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
  friend bool operator==(SlotId, SlotId) = default;
};

enum class PolicyKind : uint8_t {
  kNone,  // never evicts by itself: pinned and streamed units, dropped by the caller
  kLru,
  kS3Fifo,
  kLfu,  // frequency with ageing, admission by frequency: near the best static set
};

struct CacheOptions {
  int64_t units = 0;  // ids are [0, units)
  int64_t slots = 0;
  size_t slot_bytes = 0;
  std::byte* arena = nullptr;  // slots * slot_bytes
  PolicyKind policy = PolicyKind::kLru;
  // kLfu: this many units used last stay, however rarely they were used before, and every unit is admitted. Pays where
  // choices repeat from token to token: about one token's uses for experts, 0 for neurons (docs/cache.md). At most
  // half of the slots.
  int64_t recent = 0;
};

struct CacheCounts {
  uint64_t hits = 0;
  uint64_t misses = 0;  // find() of a unit that is not there (loading counts as a miss)
  uint64_t evictions = 0;
  uint64_t refused = 0;  // reserve() without a slot
};

class UnitCache {
 public:
  enum class State : uint8_t { kFree, kLoading, kReady };

  explicit UnitCache(const CacheOptions& options);
  ~UnitCache();
  // Bytes of bookkeeping for these options, which count against the budget, too.
  static size_t bookkeeping_bytes(const CacheOptions& options);

  // Counts a use, cached or not. Ready: a lease on its slot (release it once). Otherwise no slot; state() says whether
  // it is loading.
  SlotId find(UnitId unit);
  // The same n times over, for a batch that uses the unit n times (one lease). 0 leases without counting.
  SlotId find(UnitId unit, int64_t uses);
  State state(UnitId unit) const;
  // Takes a slot for a unit that has none: a free one, or the policy's victim. No slot where all are leased, loading or
  // pinned, or where the policy rates the unit below its victim (unless `must`).
  SlotId reserve(UnitId unit, bool must);
  // loading -> ready, with one lease for the caller where `lease`.
  void commit(SlotId slot, bool lease);
  void abandon(SlotId slot);
  void release(SlotId slot);
  // ready and not leased -> free at once, pinned or not.
  void drop(UnitId unit);
  void pin(UnitId unit, bool pinned);  // ready or loading units

  // All layers of a token, or of a batch or prompt, were looked up. kLfu ages its counts here and nowhere else, so that
  // no layer's are halved before another's; without these calls it works, but never forgets. O(units) at times.
  void end_pass();

  std::byte* data(SlotId slot) const;
  UnitId unit(SlotId slot) const;
  int leases(SlotId slot) const;
  int64_t slots() const;       // in use by this cache now
  int64_t free_slots() const;  // of these
  // Gives up slots from the end of the arena (their units are evicted) or takes them back, at most CacheOptions::slots.
  // Shrinking stops at the first slot that is leased, loading or pinned; returns the number of slots afterwards.
  int64_t resize(int64_t slots);
  const CacheCounts& counts() const;
  void reset_counts();
  // free + loading + ready == slots(); every unit has at most one slot; policy and states agree. For tests.
  Status check() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stoke::cache
