#include "pipeline/stream_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "pipeline/superset.h"

namespace stoke::pipeline {
namespace {

using cache::SlotId;
using cache::UnitId;

constexpr int64_t kLeastWindow = 4;

cache::CacheOptions cache_options(const UnitTable& table, const StreamOptions& options, std::byte* arena) {
  return {.units = table.size(),
          .slots = options.slots,
          .slot_bytes = table.slot_bytes(),
          .arena = arena,
          .policy = table.expert_bytes() > 0 ? options.policy : cache::PolicyKind::kNone,
          .recent = options.recent};
}

// Whether the i-th dense block is one of those that stay: as even as whole numbers allow.
bool is_pinned(int64_t i, int64_t pinned, int64_t dense) { return (i + 1) * pinned / dense > i * pinned / dense; }

}  // namespace

StreamSource::StreamSource(UnitTable table, IoQueue& queue, sys::Memory arena, const StreamOptions& options)
    : table_(std::move(table)),
      queue_(queue),
      arena_(std::move(arena)),
      options_(options),
      cache_(cache_options(table_, options, arena_.data())),
      live_(static_cast<size_t>(table_.size())),
      pending_(static_cast<size_t>(options.slots) + 1),
      expected_(static_cast<size_t>(table_.size()) + 1),
      guessed_(static_cast<size_t>(table_.size()) + 1),
      rows_(queue) {
  CHECK(arena_.size() >= static_cast<size_t>(options.slots) * table_.slot_bytes());
  guesses_.reserve(static_cast<size_t>(table_.size()));
  choose_pinned();
}

StreamSource::~StreamSource() {
  settle();  // reads in flight write into the arena
}

int64_t StreamSource::least_slots(const UnitTable& table, int64_t layer_units) {
  return std::min(table.size(), kLeastWindow + layer_units);
}

size_t StreamSource::bookkeeping_bytes(const UnitTable& table, int64_t slots) {
  const auto units = static_cast<size_t>(table.size());
  return cache::UnitCache::bookkeeping_bytes({.units = table.size(), .slots = slots}) +
         units * (sizeof(Live) + sizeof(Unit) + 4 * sizeof(int64_t)) + static_cast<size_t>(slots) * sizeof(int32_t) +
         sizeof(RowReader) + RowReader::kBufferBytes;
}

// Every token uses every dense block, so with experts these come first, but for a share of the slots.
StreamSource::Share StreamSource::share_slots(const UnitTable& table, const StreamOptions& options) {
  Share share;
  const auto dense = static_cast<int64_t>(table.order().size());
  const int64_t experts = table.size() - dense;
  share.window = std::clamp(options.slots / 8, kLeastWindow, options.window);
  const int64_t for_experts = std::min(experts, std::max(options.expert_slots_least, options.slots / 4));
  share.pinned = std::clamp<int64_t>(options.slots - for_experts, 0, dense);
  if (share.pinned < dense) share.pinned = std::max<int64_t>(0, share.pinned - share.window);
  const int64_t streaming = share.pinned < dense ? share.window : 0;
  share.expert_slots = std::clamp<int64_t>(options.slots - share.pinned - streaming, 0, experts);
  for (int64_t i = 0; i < dense; ++i) {
    const uint64_t bytes = table.unit({table.order()[static_cast<size_t>(i)]}).bytes;
    share.dense_bytes += bytes;
    if (!is_pinned(i, share.pinned, dense)) share.streamed_bytes += bytes;
  }
  return share;
}

void StreamSource::choose_pinned() {
  const Share share = share_slots(table_, options_);
  const auto dense = static_cast<int64_t>(table_.order().size());
  window_ = share.window;
  pinned_ = share.pinned;
  for (int64_t i = 0; i < dense; ++i) {
    live_[static_cast<size_t>(table_.order()[static_cast<size_t>(i)])].pinned = is_pinned(i, pinned_, dense);
  }
}

void StreamSource::start() { advance(); }

io::Read StreamSource::read_of(UnitId id, SlotId slot) const {
  const Unit& unit = table_.unit(id);
  io::Read read = superset(*unit.file, unit.offset, unit.bytes, cache_.data(slot));
  read.tag = static_cast<uint64_t>(id.index);
  return read;
}

// Takes a slot and asks for the unit's bytes. False where there is no slot or no room in the queue now.
bool StreamSource::load(UnitId id, IoQueue::Priority priority) {
  if (queue_.room(priority) == 0) return false;
  const SlotId slot = cache_.reserve(id, true);
  if (!slot.valid()) return false;
  live(id).slot = slot;
  live(id).retried = false;
  // A dense unit is never a victim: whether it stays is not the policy's business.
  if (!table_.unit(id).expert) cache_.pin(id, true);
  CHECK(queue_.push(*this, read_of(id, slot), priority));
  return true;
}

// Dense: the next units of the order, as far as the window reaches.
void StreamSource::advance() {
  const std::span<const int32_t> order = table_.order();
  const auto end = static_cast<int64_t>(order.size());
  const int64_t limit = wants_tail_ ? end : table_.tail();
  // One turn at most: where everything is resident there is nothing to ask for.
  for (int64_t looked = 0; looked < end && static_cast<int64_t>(pending_.size()) < window_; ++looked) {
    if (next_ >= limit) next_ = 0;
    const UnitId id = {order[static_cast<size_t>(next_)]};
    Live& unit = live(id);
    if (cache_.state(id) == cache::UnitCache::State::kFree) {
      if (!unit.pinned && streaming_ >= window_) return;
      if (!load(id, IoQueue::Priority::kBackground)) return;
      streaming_ += unit.pinned ? 0 : 1;
    } else if (unit.pinned || unit.pending || unit.leases > 0) {
      // A streamed unit that is still in use: its turn comes when it has been dropped.
      if (!unit.pinned) return;
      next_ = next_ + 1;
      continue;
    }
    unit.stale = false;
    unit.pending = true;
    pending_.push(id.index);
    next_ = next_ + 1;
  }
}

// The pass has come to this dense unit: those asked for before it were passed over.
void StreamSource::reach(UnitId id) {
  if (!live(id).pending) {
    if (cache_.state(id) == cache::UnitCache::State::kFree) resync(id);
    return;
  }
  while (!pending_.empty()) {
    const UnitId front = {pending_.front()};
    pending_.pop();
    live(front).pending = false;
    if (front == id) return;
    drop(front);
  }
}

// The pass is somewhere else than was thought (cancelled, or a part was left out): begin anew from there.
void StreamSource::resync(UnitId id) {
  while (!pending_.empty()) {
    const UnitId front = {pending_.front()};
    pending_.pop();
    live(front).pending = false;
    drop(front);
  }
  next_ = table_.position(id);
  advance();
  if (live(id).pending) reach(id);
}

// A streamed unit that nobody needs any more. Loading ones are dropped when they arrive.
void StreamSource::drop(UnitId id) {
  Live& unit = live(id);
  if (unit.pinned || unit.leases > 0) return;
  if (!ready(id)) {
    unit.stale = cache_.state(id) == cache::UnitCache::State::kLoading;
    return;
  }
  unit.stale = false;
  unit.slot = {};
  cache_.pin(id, false);
  cache_.drop(id);
  --streaming_;
}

// Experts: asks for what is expected, in order, while there are slots. What is there is leased so that it stays.
void StreamSource::feed() {
  while (!expected_.empty()) {
    const UnitId id = {expected_.front()};
    Live& unit = live(id);
    if (unit.wanted && !unit.held) {
      const auto state = cache_.state(id);
      if (state == cache::UnitCache::State::kReady) {
        unit.slot = cache_.find(id);
        ++counts_.expert_hits;
        unit.held = true;
        unit.wanted = false;
      } else if (state == cache::UnitCache::State::kFree) {
        if (!load(id, IoQueue::Priority::kUrgent)) return;
        cache_.find(id);  // counts the use
        ++counts_.expert_misses;
      } else {
        cache_.find(id);
        ++counts_.expert_misses;  // on its way already
      }
    }
    expected_.pop();
  }
}

void StreamSource::forget_expected() {
  expected_.clear();
  if (table_.expert_bytes() == 0) return;
  begin_guess();
  for (size_t i = 0; i < live_.size(); ++i) {
    Live& unit = live_[i];
    unit.wanted = false;
    if (!unit.held) continue;
    unit.held = false;
    cache_.release(unit.slot);
  }
}

// Expected units hold all slots and the one needed now has none: let go of the others, they will be read again.
void StreamSource::loosen(UnitId needed) {
  for (size_t i = 0; i < live_.size(); ++i) {
    Live& unit = live_[i];
    if (!unit.held || static_cast<int32_t>(i) == needed.index) continue;
    unit.held = unit.guessed = false;
    cache_.release(unit.slot);
  }
}

void StreamSource::begin_pass(bool logits) {
  wants_tail_ = logits;
  forget_expected();
  cache_.end_pass();  // of the pass before
}

void StreamSource::expect(std::span<const model::ExpectedProduct> products) {
  const auto want = [&](const model::MatrixSlice& slice, int64_t row) {
    const UnitId id = table_.find(slice.id, row);
    Live& unit = live(id);
    claim(id);
    if (!unit.wanted && !unit.held && !expected_.full()) {
      unit.wanted = true;
      expected_.push(id.index);
    }
    return table_.unit(id).rows.end;
  };
  for (const model::ExpectedProduct& product : products) {
    int64_t up_row = product.up.rows.begin;
    for (int64_t row = product.w.rows.begin; row < product.w.rows.end;) {
      row = want(product.w, row);
      if (product.up.valid() && up_row < product.up.rows.end) up_row = want(product.up, up_row);
    }
  }
  feed();
  queue_.pump();
}

bool StreamSource::at_hand(model::MatrixId id, int64_t row) const { return ready(table_.find(id, row)); }

Status StreamSource::no_slot(UnitId id) const {
  const Unit& unit = table_.unit(id);
  return Status(Code::kNoMemory,
                fmt::format("{}: tensor {}: none of the {} slots is free for its rows from {} on: raise "
                            "--memory",
                            unit.file->path(), table_.matrix({unit.matrix}).name, cache_.slots(), unit.rows.begin));
}

// For what is needed now. Whether its read is on its way.
bool StreamSource::ask(UnitId id) {
  if (table_.unit(id).expert) return load(id, IoQueue::Priority::kUrgent);
  resync(id);
  return cache_.state(id) != cache::UnitCache::State::kFree;
}

Status StreamSource::wait_for(UnitId id) {
  const bool expert = table_.unit(id).expert;
  while (true) {
    take_checked();
    if (ready(id)) return ok_status();
    if (!failure_.ok()) return std::exchange(failure_, Status());
    if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) return Status(Code::kCancelled, "cancelled");
    if (cache_.state(id) == cache::UnitCache::State::kFree) {
      bool asked = ask(id);
      if (!asked && queue_.idle()) {
        checker_.hurry_all();
        take_checked();
        loosen(id);
        asked = ask(id);
        if (!asked) return no_slot(id);  // nothing is on its way: it would never come
      }
      counts_.expert_misses += expert && asked ? 1 : 0;
    }
    if (checker_.hurry(id.index)) continue;
    queue_.hold_background(false);            // what is waited for is among them
    if (queue_.idle()) checker_.hurry_all();  // blocks that nobody wants any more hold the window's slots
    queue_.wait();
  }
}

std::byte* StreamSource::first_row(UnitId id) const {
  const Unit& unit = table_.unit(id);
  return cache_.data(live(id).slot) + unit.offset % unit.file->alignment();
}

Result<RowsView> StreamSource::acquire(model::MatrixId id, RowRange wanted) {
  const UnitId unit_id = table_.find(id, wanted.begin);
  const Unit& unit = table_.unit(unit_id);
  Live& state = live(unit_id);
  if (!unit.expert) reach(unit_id);
  queue_.pump();
  take_checked();
  const bool was_ready = ready(unit_id);
  if (!was_ready) STOKE_TRY(wait_for(unit_id));
  if (state.held) {
    state.held = false;  // its lease is ours now
  } else {
    state.slot = cache_.find(unit_id);
    if (!unit.expert) ++(state.pinned && was_ready ? counts_.dense_hits : counts_.dense_misses);
  }
  ++state.leases;
  const model::MatrixInfo& info = matrix(id);
  const RowRange rows = {wanted.begin, std::min(wanted.end, unit.rows.end)};
  const size_t lead = static_cast<size_t>(rows.begin - unit.rows.begin) * info.row_bytes;
  return RowsView{info.type, rows, info.cols, info.row_bytes, first_row(unit_id) + lead};
}

void StreamSource::release(model::MatrixId id, const RowsView& rows) {
  const UnitId unit_id = table_.find(id, rows.rows.begin);
  Live& state = live(unit_id);
  --state.leases;
  cache_.release(state.slot);
  if (table_.unit(unit_id).expert) {
    feed();
    return;
  }
  if (rows.rows.end == table_.unit(unit_id).rows.end && !state.pending) drop(unit_id);
  advance();
}

}  // namespace stoke::pipeline
