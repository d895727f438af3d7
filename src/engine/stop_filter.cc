#include "engine/stop_filter.h"

#include <algorithm>

namespace stoke::engine {

std::string_view StopFilter::push(std::string_view piece) {
  text_->append(piece);
  size_t end = std::string::npos;
  // A match cannot begin before shown_: such a beginning would have been held back.
  for (const std::string& stop : stops_) {
    if (!stop.empty()) end = std::min(end, text_->find(stop, shown_));
  }
  if (end != std::string::npos) {
    text_->resize(end);
    stopped_ = true;
    return show_until(end);
  }
  return show_until(held_from(shown_));
}

std::string_view StopFilter::finish(std::string_view piece) {
  text_->append(piece);
  return show_until(text_->size());
}

// Where the longest end of the text begins that is the beginning of a stop text.
size_t StopFilter::held_from(size_t begin) const {
  size_t held = text_->size();
  for (const std::string& stop : stops_) {
    const size_t longest = std::min(stop.size(), text_->size() - begin + 1);
    for (size_t n = longest; n-- > 1;) {
      if (std::string_view(*text_).ends_with(std::string_view(stop).substr(0, n))) {
        held = std::min(held, text_->size() - n);
        break;
      }
    }
  }
  return held;
}

std::string_view StopFilter::show_until(size_t end) {
  const std::string_view piece = std::string_view(*text_).substr(shown_, end - shown_);
  shown_ = end;
  return piece;
}

}  // namespace stoke::engine
