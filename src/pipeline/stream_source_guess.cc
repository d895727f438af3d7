// StreamSource: experts that the next layer may use, read while the disk has nothing better to do.
//
// What was guessed is kept until the next layer has said what it uses: claim() is the guess come true. A guess never
// waits, never goes before what is needed, and where its read fails nobody hears of it: who needs the unit reads it
// again.
#include "pipeline/stream_source.h"

namespace stoke::pipeline {
namespace {

using cache::UnitId;
using State = cache::UnitCache::State;

// In flight at once: what is needed waits for them, about a millisecond.
constexpr uint64_t kGuessBytes = uint64_t{3} << 20;
// A cache that holds fewer layers' uses has no room for guesses.
constexpr int64_t kLayersLeast = 3;

}  // namespace

// The router must be at hand: waiting for one that streams would confuse the order of the others, and one that will
// stay but has not come yet may find every slot held by the experts of this layer.
bool StreamSource::guesses(const model::MatrixSlice& router) const {
  const bool dense_stays = pinned_ == static_cast<int64_t>(table_.order().size());
  const bool misses = cache_.slots() < table_.size();
  if (!dense_stays || !misses || cache_.slots() - pinned_ < kLayersLeast * options_.expert_slots_least) return false;
  for (int64_t row = router.rows.begin; row < router.rows.end;) {
    const UnitId id = table_.find(router.id, row);
    if (!ready(id)) return false;
    row = table_.unit(id).rows.end;
  }
  return true;
}

void StreamSource::begin_guess() {
  for (const int32_t index : guesses_) {
    Live& unit = live({index});
    if (!unit.guessed) continue;
    unit.guessed = false;
    if (!unit.held) continue;
    unit.held = false;
    cache_.release(unit.slot);
  }
  guesses_.clear();
  guessed_.clear();
}

void StreamSource::guess(const model::ExpectedProduct& product) {
  for (const model::MatrixSlice& slice : {product.w, product.up}) {
    for (int64_t row = slice.rows.begin; slice.valid() && row < slice.rows.end;) {
      const UnitId id = table_.find(slice.id, row);
      row = table_.unit(id).rows.end;
      Live& unit = live(id);
      if (unit.guessed || unit.wanted || unit.held || guesses_.size() == guesses_.capacity()) continue;
      unit.guessed = true;
      guesses_.push_back(id.index);
      if (cache_.state(id) == State::kFree) {
        guessed_.push(id.index);
      } else if (ready(id)) {
        unit.slot = cache_.find(id, 0);
        unit.held = true;
      }
    }
  }
  feed_guesses();
  queue_.pump();
}

// Called from on_read(), too: must not pump.
void StreamSource::feed_guesses() {
  while (!guessed_.empty() && expected_.empty() && guess_bytes_ < kGuessBytes && !queue_.urgent_queued()) {
    const UnitId id = {guessed_.front()};
    Live& unit = live(id);
    if (unit.guessed && cache_.state(id) == State::kFree) {
      if (!load(id, IoQueue::Priority::kBackground)) return;
      unit.ahead = true;
      guess_bytes_ += table_.unit(id).bytes;
    }
    guessed_.pop();
  }
}

void StreamSource::end_ahead(UnitId id) {
  if (live(id).ahead) guess_bytes_ -= table_.unit(id).bytes;
  live(id).ahead = false;
}

void StreamSource::abandon_guess(UnitId id) {
  end_ahead(id);
  cache_.abandon(live(id).slot);
  live(id) = {};
}

// A guess that came true, as far as it got: its use is counted, and what is held stays so for the acquire() to come.
void StreamSource::claim(UnitId id) {
  Live& unit = live(id);
  if (!unit.guessed) return;
  unit.guessed = false;
  if (!unit.held) return;
  cache_.release(cache_.find(id));
  ++counts_.expert_hits;
}

}  // namespace stoke::pipeline
