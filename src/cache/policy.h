// What to evict: a policy is four verbs over indices (admit, touch, evict, remove), and is told who is held.
//
// A policy tracks the slots that are ready and not pinned; it never gives one that is held (leased) as a victim.
// It knows nothing of bytes, reads or states: the cache calls it, in this order where several apply: hold, touch;
// admit, hold; resume. Every verb is O(1), amortised for kS3Fifo. docs/cache.md says which policy is for what. Thread
// role: the cache's. Ownership: its tables, taken once at construction. Errors: check() only; misuse is a bug.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "cache/unit_cache.h"

namespace stoke::cache {

// What the cache knows of a slot; 8 bytes, since there may be millions.
struct SlotRecord {
  int32_t unit = -1;
  uint16_t leases = 0;
  UnitCache::State state = UnitCache::State::kFree;
  bool pinned = false;

  bool tracked() const { return state == UnitCache::State::kReady && !pinned; }
  bool evictable() const { return tracked() && leases == 0; }
};

class Policy {
 public:
  virtual ~Policy() = default;

  // The slot holds the unit from now on, and nobody holds the slot.
  virtual void admit(int32_t unit, int32_t slot) = 0;
  // A use of a unit, cached (a tracked slot, held by now) or not (-1).
  virtual void touch(int32_t unit, int32_t slot, int64_t uses) = 0;
  // A victim that makes room for the unit, no longer tracked: or -1, where all are held, or where the unit is rated
  // below the victim and is not a `must`.
  virtual int32_t evict(int32_t unit, bool must) = 0;
  // Not tracked any more.
  virtual void remove(int32_t slot) = 0;
  // The first lease of a tracked slot was taken; its last was given back.
  virtual void hold(int32_t slot) = 0;
  virtual void resume(int32_t unit, int32_t slot) = 0;

  // The end of a pass over the layers: the time to forget.
  virtual void end_pass() {}
  // The slots in use are [0, slots) from now on. Those beyond were removed.
  virtual void resize(int64_t slots) = 0;
  // Tracks what it should and nothing else; its tables agree. O(slots), for tests.
  virtual Status check(std::span<const SlotRecord> slots) const = 0;
};

std::unique_ptr<Policy> make_policy(const CacheOptions& options);
// Bytes of its tables.
size_t policy_bytes(const CacheOptions& options);

}  // namespace stoke::cache
