// StreamSource: giving slots back, and taking them again.
#include <algorithm>

#include "base/check.h"
#include "pipeline/stream_source.h"

namespace stoke::pipeline {

using cache::UnitId;

void StreamSource::unpin(UnitId id) {
  Live& unit = live(id);
  if (unit.pinned) {
    unit.pinned = false;
    --pinned_;
    if (cache_.state(id) != cache::UnitCache::State::kFree) ++streaming_;
  }
  drop(id);
}

void StreamSource::unpin_evenly(int64_t count) {
  const int64_t pinned = pinned_;
  int64_t seen = 0;
  for (const int32_t u : table_.order()) {
    if (count <= 0 || !live_[static_cast<size_t>(u)].pinned) continue;
    if ((seen + 1) * count / pinned > seen * count / pinned) unpin({u});
    ++seen;
  }
}

// Units that streamed until now: one that is on its way, or waits for its turn, simply stays.
void StreamSource::pin_evenly(int64_t count) {
  const int64_t streamed = static_cast<int64_t>(table_.order().size()) - pinned_;
  int64_t seen = 0;
  for (const int32_t u : table_.order()) {
    Live& unit = live_[static_cast<size_t>(u)];
    if (count <= 0 || unit.pinned) continue;
    if ((seen + 1) * count / streamed > seen * count / streamed) {
      unit.pinned = true;
      unit.stale = false;
      ++pinned_;
      if (cache_.state({u}) != cache::UnitCache::State::kFree) --streaming_;
    }
    ++seen;
  }
}

int64_t StreamSource::resize(int64_t slots) {
  const int64_t target = std::clamp(slots, least_slots(), options_.slots);
  StreamOptions now = options_;
  now.slots = target;
  const Share share = share_slots(table_, now);
  if (target < cache_.slots()) {
    shrink(target, share);
  } else if (target > cache_.slots()) {
    cache_.resize(target);
    window_ = share.window;
    pin_evenly(share.pinned - pinned_);
  }
  return cache_.slots();
}

// What was read ahead is let go first, so that nothing is in flight. Pinned units that lie in the slots to go are
// streamed from now on.
void StreamSource::shrink(int64_t target, const Share& share) {
  const int64_t before = cache_.slots();
  forget_expected();
  settle();
  if (!pending_.empty()) next_ = table_.position({pending_.front()});
  for (; !pending_.empty(); pending_.pop()) {
    live({pending_.front()}).pending = false;
    drop({pending_.front()});
  }
  for (int64_t s = target; s < before; ++s) {
    const UnitId id = cache_.unit({static_cast<int32_t>(s)});
    if (id.valid() && !table_.unit(id).expert) unpin(id);
  }
  window_ = share.window;
  unpin_evenly(pinned_ - share.pinned);
  pin_evenly(share.pinned - pinned_);
  const int64_t left = cache_.resize(target);
  arena_.discard(static_cast<size_t>(left) * table_.slot_bytes(),
                 static_cast<size_t>(before - left) * table_.slot_bytes());
}

int64_t StreamSource::experts_held(const model::Config& config) const {
  const auto dense = static_cast<int64_t>(table_.order().size());
  const int64_t units = table_.size() - dense;
  const int64_t layers = std::ranges::count_if(config.layer, [](const auto& l) { return l.moe; });
  const int64_t slots = cache_.slots() - pinned_ - (pinned_ < dense ? window_ : 0);
  return units == 0 ? 0 : std::clamp<int64_t>(slots, 0, units) * layers * config.moe.experts / units;
}

}  // namespace stoke::pipeline
