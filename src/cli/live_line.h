// The line on standard error that says what a streaming model is doing, refreshed a few times a second:
//   stoke: 3.2 tok/s, 850 MB/s read, 83 % hits, 1.89 GiB of 2.00 GiB
//
// It is there only where standard error is a terminal and never beside text that goes to the same one: while a prompt
// is computed always, while an answer comes only if its text goes elsewhere (a file, a pipe, --json at the end). A line
// under growing text would have to be erased and drawn again around each piece; one byte more from anyone else, or a
// line that wraps, and the answer is torn. The answer is what users came for, and its pace shows the rate.
// Thread role: main thread. Ownership: outlives the model that calls it. Errors: none.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "stoke/stoke.h"

namespace stoke::cli {

class LiveLine {
 public:
  // `prints`: text goes to standard output while it is generated.
  LiveLine(bool quiet, bool prints);
  ~LiveLine() { end(); }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  // For ModelOptions::activity; empty where no line is shown.
  ActivityCallback callback();
  // A prompt is going to be computed.
  void begin();
  // Text comes next: takes the line away unless the text goes elsewhere.
  void text_follows();
  // Takes the line away, until begin().
  void end();

 private:
  void show(const Activity& now);
  void erase();

  const bool possible_;
  const bool text_here_;  // printed text appears on the terminal
  bool wanted_ = false;
  bool shown_ = false;
  // The latest activities, a ring: rates are over what it spans, about ten seconds.
  std::array<Activity, 40> past_;
  int64_t seen_ = 0;
};

// The line's text, no wider than `columns`: what was done between two moments, and what is held now.
std::string live_text(const Activity& before, const Activity& now, int columns);

}  // namespace stoke::cli
