// Doubly linked lists over slot numbers, several in one array: what policies keep their orders in.
//
// A slot is in at most one list. Every operation is O(1) and touches three links at most; heads lie behind the slots in
// the same array. Thread role: one thread. Ownership: the array, taken once at construction. Misuse is not checked
// here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stoke::cache {

class SlotLists {
 public:
  SlotLists(int64_t slots, int lists) : slots_(static_cast<int32_t>(slots)), links_(slots + lists) {
    for (size_t i = 0; i < links_.size(); ++i) links_[i].prev = links_[i].next = static_cast<int32_t>(i);
  }
  static size_t bytes(int64_t slots, int lists) { return (slots + lists) * sizeof(Link); }

  bool linked(int32_t slot) const { return links_[slot].next != slot; }
  bool empty(int list) const { return !linked(slots_ + list); }
  // The oldest slot of a list, or -1.
  int32_t front(int list) const {
    const int32_t slot = links_[slots_ + list].next;
    return slot < slots_ ? slot : -1;
  }
  // The slot behind `slot`, or -1 at the end.
  int32_t next(int32_t slot) const {
    const int32_t behind = links_[slot].next;
    return behind < slots_ ? behind : -1;
  }

  void push_back(int list, int32_t slot) {
    const int32_t head = slots_ + list;
    const int32_t last = links_[head].prev;
    links_[slot] = {.prev = last, .next = head};
    links_[last].next = slot;
    links_[head].prev = slot;
  }
  // Takes a slot out of its list, if it is in one. The list that this emptied, or -1.
  int unlink(int32_t slot) {
    const Link link = links_[slot];
    if (link.next == slot) return -1;
    links_[link.prev].next = link.next;
    links_[link.next].prev = link.prev;
    links_[slot] = {.prev = slot, .next = slot};
    return link.prev == link.next ? link.prev - slots_ : -1;
  }
  // Moves all of `from` behind the last of `to`, in order.
  void append(int to, int from) {
    if (empty(from)) return;
    const int32_t target = slots_ + to;
    const int32_t source = slots_ + from;
    const Link moved = links_[source];
    links_[source] = {.prev = source, .next = source};
    links_[links_[target].prev].next = moved.next;
    links_[moved.next].prev = links_[target].prev;
    links_[moved.prev].next = target;
    links_[target].prev = moved.prev;
  }

 private:
  struct Link {
    int32_t prev = 0;
    int32_t next = 0;
  };
  int32_t slots_;
  std::vector<Link> links_;
};

}  // namespace stoke::cache
