// Finds thinking blocks (<think> ... </think>) in a stream of text, so that a terminal can show them dimmed.
//
// Thread role: main thread. Ownership: values.
#pragma once

#include <string>
#include <string_view>

namespace stoke::cli {

class ThinkFilter {
 public:
  // `dim_on` and `dim_off` are put around thinking blocks, tags included; both empty leaves the text as it is.
  // `thinking`: the prompt already opened a block.
  ThinkFilter(std::string dim_on, std::string dim_off, bool thinking = false);

  // What to write for this piece: all of it but an end that may be the beginning of a tag.
  std::string push(std::string_view piece);
  // What was held back, and the end of dimming.
  std::string finish();

 private:
  std::string_view tag() const;

  std::string on_;
  std::string off_;
  bool inside_ = false;
  bool dimmed_ = false;
  std::string held_;
};

}  // namespace stoke::cli
