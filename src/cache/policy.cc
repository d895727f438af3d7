#include "cache/policy.h"

#include "cache/lfu.h"
#include "cache/s3_fifo.h"
#include "cache/slot_lists.h"

namespace stoke::cache {
namespace {

class NonePolicy final : public Policy {
 public:
  void admit(int32_t, int32_t) override {}
  void touch(int32_t, int32_t, int64_t) override {}
  int32_t evict(int32_t, bool) override { return -1; }
  void remove(int32_t) override {}
  void hold(int32_t) override {}
  void resume(int32_t, int32_t) override {}
  void resize(int64_t) override {}
  Status check(std::span<const SlotRecord>) const override { return ok_status(); }
};

// One list of the slots nobody holds, in the order of their last release.
class LruPolicy final : public Policy {
 public:
  explicit LruPolicy(int64_t slots) : order_(slots, 1) {}

  void admit(int32_t, int32_t slot) override { order_.push_back(0, slot); }
  void touch(int32_t, int32_t, int64_t) override {}
  int32_t evict(int32_t, bool) override {
    const int32_t victim = order_.front(0);
    if (victim >= 0) order_.unlink(victim);
    return victim;
  }
  void remove(int32_t slot) override { order_.unlink(slot); }
  void hold(int32_t slot) override { order_.unlink(slot); }
  void resume(int32_t, int32_t slot) override { order_.push_back(0, slot); }
  void resize(int64_t) override {}
  Status check(std::span<const SlotRecord> slots) const override {
    int64_t expected = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      if (order_.linked(static_cast<int32_t>(i)) != slots[i].evictable())
        return Status(Code::kCorrupt, "lru: a slot is listed though held, or not though free to go");
      expected += slots[i].evictable() ? 1 : 0;
    }
    for (int32_t slot = order_.front(0); slot >= 0; slot = order_.next(slot)) --expected;
    return expected == 0 ? ok_status() : Status(Code::kCorrupt, "lru: the list has lost slots");
  }

 private:
  SlotLists order_;
};

}  // namespace

std::unique_ptr<Policy> make_policy(const CacheOptions& options) {
  switch (options.policy) {
    case PolicyKind::kNone:
      return std::make_unique<NonePolicy>();
    case PolicyKind::kLru:
      return std::make_unique<LruPolicy>(options.slots);
    case PolicyKind::kS3Fifo:
      return std::make_unique<S3FifoPolicy>(options.units, options.slots);
    case PolicyKind::kLfu:
      return std::make_unique<LfuPolicy>(options);
  }
  return nullptr;
}

size_t policy_bytes(const CacheOptions& options) {
  switch (options.policy) {
    case PolicyKind::kNone:
      return 0;
    case PolicyKind::kLru:
      return SlotLists::bytes(options.slots, 1);
    case PolicyKind::kS3Fifo:
      return S3FifoPolicy::bytes(options.units, options.slots);
    case PolicyKind::kLfu:
      return LfuPolicy::bytes(options);
  }
  return 0;
}

}  // namespace stoke::cache
