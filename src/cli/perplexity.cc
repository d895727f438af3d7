#include "cli/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include "cli/standard_streams.h"

namespace stoke::cli {
namespace {

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  const float peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - peak));
  return std::log(sum) + static_cast<double>(peak) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

Status score_window(Model& model, Session& session, std::vector<int32_t> window, const Interrupt& interrupt,
                    PplScore* score) {
  if (model.tokenizer().adds_bos()) window[0] = model.tokenizer().bos();
  const auto size = static_cast<int64_t>(window.size());
  session.truncate(0);
  Status status = session.score(
      window, size / 2,
      [&](int64_t index, std::span<const float> logits) {
        if (index + 1 == size) return;
        score->nll += negative_log_likelihood(logits, window[static_cast<size_t>(index) + 1]);
        ++score->tokens;
      },
      &interrupt.flag());
  ++score->windows;
  return status;
}

}  // namespace

Result<PplScore> score_text(Model& model, const std::string& text, const PplOptions& options,
                            const Interrupt& interrupt) {
  const auto tokens = model.tokenizer().encode(text);
  return tokens.ok() ? score_tokens(model, *tokens, options, interrupt) : tokens.status();
}

Result<PplScore> score_tokens(Model& model, std::span<const int32_t> tokens, const PplOptions& options,
                              const Interrupt& interrupt) {
  int64_t windows = std::ssize(tokens) / options.window;
  if (windows == 0) {
    return Status(Code::kInvalid, fmt::format("the text has {} tokens, fewer than one window of {}: give more text or "
                                              "a smaller --ctx",
                                              tokens.size(), options.window));
  }
  if (options.windows_max > 0) windows = std::min(windows, options.windows_max);
  auto session = model.new_session();
  if (!session.ok()) return session.status();
  PplScore score;
  for (int64_t i = 0; i < windows; ++i) {
    const auto begin = tokens.begin() + i * options.window;
    Status status = score_window(model, **session, {begin, begin + options.window}, interrupt, &score);
    if (interrupt.raised()) return Status(Code::kCancelled, "stopped while measuring perplexity");
    if (!status.ok()) return status;
    if (options.progress) {
      tell("\r{}/{} windows, perplexity {:.4f} ", i + 1, windows, score.perplexity());
    }
  }
  if (options.progress) tell("\r\033[K");
  return score;
}

}  // namespace stoke::cli
