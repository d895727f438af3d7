// Streams text while watching for texts that end the generation: what may be the beginning of one is held back until it
// is known not to be.
//
// Thread role: the control thread. Memory: the text so far, in a buffer that the caller may have reserved.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace stoke::engine {

class StopFilter {
 public:
  // `text` collects all that was let through; both outlive the filter. Empty stop texts are ignored.
  StopFilter(const std::vector<std::string>& stops, std::string* text) : stops_(stops), text_(text) {}

  // Adds a piece. Returns what may be shown now: a view into the text, valid until the next call.
  std::string_view push(std::string_view piece);
  // A stop text was met; the text ends before it.
  bool stopped() const { return stopped_; }
  // The generation is over with this last piece: it and what was held back after all. No stop text is looked for.
  std::string_view finish(std::string_view piece);

 private:
  size_t held_from(size_t begin) const;
  std::string_view show_until(size_t end);

  const std::vector<std::string>& stops_;
  std::string* text_;
  size_t shown_ = 0;
  bool stopped_ = false;
};

}  // namespace stoke::engine
