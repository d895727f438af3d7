#include "cli/live_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstdio>

#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {
namespace {

constexpr int kColumnsUnknown = 80;

int columns() {
  winsize size = {};
  return ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kColumnsUnknown;
}

}  // namespace

std::string live_text(const Activity& before, const Activity& now, int columns) {
  const double seconds = std::max(now.seconds - before.seconds, 1e-3);
  const auto rate = [&](int64_t from, int64_t to) { return static_cast<double>(to - from) / seconds; };
  std::string text = "stoke: ";
  if (now.generated_tokens > before.generated_tokens) {
    text += fmt::format("{:.2f} tok/s", rate(before.generated_tokens, now.generated_tokens));
  } else {
    text += fmt::format("prompt, {}", counted(now.prompt_tokens, "token"));
  }
  text += fmt::format(", {:.0f} MB/s read", rate(before.bytes_read, now.bytes_read) * 1e-6);
  if (now.cache_hit_rate >= 0) text += fmt::format(", {:.0f} % hits", now.cache_hit_rate * 100);
  text += fmt::format(", {} of {}", format_size(now.memory_bytes), format_size(now.budget_bytes));
  // A line that wraps could not be erased. The last column stays free: some terminals wrap when it is written.
  return text.substr(0, static_cast<size_t>(std::max(columns - 1, 0)));
}

LiveLine::LiveLine(bool quiet, bool prints)
    : possible_(!quiet && is_terminal(2)), text_here_(prints && is_terminal(1)) {}

ActivityCallback LiveLine::callback() {
  if (!possible_) return nullptr;
  return [this](const Activity& now) { show(now); };
}

void LiveLine::begin() {
  wanted_ = possible_;
  seen_ = 0;
}

void LiveLine::text_follows() {
  if (text_here_) return end();
  seen_ = 0;  // the rate of what follows is not that of the prompt
}

void LiveLine::end() {
  erase();
  wanted_ = false;
}

void LiveLine::erase() {
  if (!shown_) return;
  shown_ = false;
  tell("\r\033[K");
  std::fflush(stderr);
}

void LiveLine::show(const Activity& now) {
  if (!wanted_) return;
  const auto kept = static_cast<int64_t>(past_.size());
  past_[static_cast<size_t>(seen_++ % kept)] = now;
  if (seen_ == 1) return;  // a rate lies between two moments
  const Activity& oldest = past_[static_cast<size_t>(std::max<int64_t>(0, seen_ - kept) % kept)];
  tell("\r{}\033[K", live_text(oldest, now, columns()));
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace stoke::cli
