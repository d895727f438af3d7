// Ctrl-C as a flag: the first sets it, a second one while it is set ends the process as if there were no handler.
// Thread role: main thread installs; the flag may be read anywhere.
#pragma once

#include "stoke/stoke.h"

namespace stoke::cli {

inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells report it

// Catches SIGINT and SIGTERM while it lives. At most one at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  const CancelFlag& flag() const;
  bool raised() const { return flag().load(std::memory_order_relaxed); }
  void clear();
};

}  // namespace stoke::cli
