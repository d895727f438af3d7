#include "cli/think_filter.h"

#include <algorithm>
#include <utility>

namespace stoke::cli {

ThinkFilter::ThinkFilter(std::string dim_on, std::string dim_off, bool thinking)
    : on_(std::move(dim_on)), off_(std::move(dim_off)), inside_(thinking) {}

std::string_view ThinkFilter::tag() const { return inside_ ? "</think>" : "<think>"; }

std::string ThinkFilter::push(std::string_view piece) {
  held_ += piece;
  std::string out;
  if (inside_ && !dimmed_) {
    out += on_;
    dimmed_ = true;
  }
  for (size_t at = held_.find(tag()); at != std::string::npos; at = held_.find(tag())) {
    const size_t end = at + tag().size();
    if (inside_) {
      out += held_.substr(0, end) + off_;
    } else {
      out += held_.substr(0, at) + on_ + held_.substr(at, end - at);
    }
    held_.erase(0, end);
    inside_ = !inside_;
    dimmed_ = inside_;
  }
  size_t keep = std::min(tag().size() - 1, held_.size());
  while (keep > 0 && !held_.ends_with(tag().substr(0, keep))) --keep;
  out += held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string ThinkFilter::finish() {
  std::string out = std::exchange(held_, {});
  if (dimmed_) out += off_;
  dimmed_ = false;
  return out;
}

}  // namespace stoke::cli
