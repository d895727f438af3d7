// Ctrl-C and a polite kill as a flag: the first sets it, a second one while it is set ends the process as if there were
// no handler. Both end a run in the same clean way; the exit status says which it was.
// Thread role: main thread installs; the flag may be read anywhere.
#pragma once

#include "stoke/stoke.h"

namespace stoke::cli {

// Catches SIGINT and SIGTERM while it lives. At most one at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  const CancelFlag& flag() const;
  bool raised() const { return flag().load(std::memory_order_relaxed); }
  // As shells report it: 128 and the signal's number, 130 for SIGINT, 143 for SIGTERM. Requires: raised().
  int exit_status() const;
  void clear();
};

}  // namespace stoke::cli
