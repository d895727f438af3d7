#include "pipeline/block_checker.h"

#include <algorithm>

#include "sys/spin.h"

namespace stoke::pipeline {

bool BlockChecker::push(const Block& block) {
  const size_t tail = tail_.load(std::memory_order_relaxed);
  if (checks_ == nullptr || tail - head_.load(std::memory_order_relaxed) == kBlocks) return false;
  Entry& entry = at(tail);
  entry.block = block;
  entry.at = 0;
  entry.damaged.reset();
  entry.state.store(State::kWaiting, std::memory_order_release);
  tail_.store(tail + 1, std::memory_order_release);
  return true;
}

// A piece of a block that nobody else has claimed. Pieces end where units of the checksums begin.
bool BlockChecker::work(Entry& entry) {
  State waiting = State::kWaiting;
  if (entry.state.load(std::memory_order_relaxed) != waiting ||
      !entry.state.compare_exchange_strong(waiting, State::kClaimed, std::memory_order_acquire)) {
    return false;
  }
  const Block& block = entry.block;
  const uint64_t begin = block.offset + entry.at;
  const uint64_t end = block.offset + block.bytes;
  const sys::CheckedRanges::Unit unit = checks_->unit_of(begin + kPieceBytes);
  uint64_t cut = unit.offset > begin ? unit.offset : unit.offset + unit.bytes;
  cut = cut > begin ? std::min(cut, end) : end;
  entry.damaged = checks_->first_damaged(block.data + entry.at, begin, cut - begin);
  entry.at = cut - block.offset;
  const bool over = cut == end || entry.damaged.has_value();
  entry.state.store(over ? State::kDone : State::kWaiting, std::memory_order_release);
  return true;
}

bool BlockChecker::help() {
  const size_t tail = tail_.load(std::memory_order_acquire);
  for (size_t i = head_.load(std::memory_order_relaxed); i < tail; ++i) {
    if (work(at(i))) return true;
  }
  return false;
}

std::optional<BlockChecker::Checked> BlockChecker::take() {
  const size_t tail = tail_.load(std::memory_order_relaxed);
  size_t head = head_.load(std::memory_order_relaxed);
  std::optional<Checked> out;
  for (size_t i = head; i < tail && !out; ++i) {
    Entry& entry = at(i);
    if (entry.state.load(std::memory_order_acquire) != State::kDone) continue;
    out = Checked{entry.block.unit, entry.damaged};
    entry.state.store(State::kFree, std::memory_order_relaxed);
  }
  while (head < tail && at(head).state.load(std::memory_order_relaxed) == State::kFree) ++head;
  head_.store(head, std::memory_order_relaxed);
  return out;
}

void BlockChecker::finish(Entry& entry) {
  while (entry.state.load(std::memory_order_acquire) != State::kDone) {
    if (!work(entry)) sys::cpu_relax();
  }
}

bool BlockChecker::hurry(int32_t unit) {
  for (size_t i = head_.load(std::memory_order_relaxed); i < tail_.load(std::memory_order_relaxed); ++i) {
    if (at(i).state.load(std::memory_order_relaxed) == State::kFree || at(i).block.unit != unit) continue;
    finish(at(i));
    return true;
  }
  return false;
}

void BlockChecker::hurry_all() {
  for (size_t i = head_.load(std::memory_order_relaxed); i < tail_.load(std::memory_order_relaxed); ++i) {
    if (at(i).state.load(std::memory_order_relaxed) != State::kFree) finish(at(i));
  }
}

}  // namespace stoke::pipeline
