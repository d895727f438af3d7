// Session: prefill, score, fork and truncate. Generation is in generate.cc.
#include <fmt/format.h>

#include <algorithm>

#include "engine/session_impl.h"

namespace stoke {

Session::Impl::Impl(engine::Engine& owner, kv::SeqId sequence) : engine(owner), seq(sequence) {
  tokens.reserve(static_cast<size_t>(engine.sizes().context));
  logits.resize(static_cast<size_t>(engine.config().vocab));
  outputs.reserve(static_cast<size_t>(engine.sizes().batch));
}

Session::Impl::~Impl() { engine.pool().release(seq); }

Status Session::Impl::check_room(size_t more) const {
  const auto room = static_cast<size_t>(engine.sizes().context) - tokens.size();
  if (more <= room) return ok_status();
  const int64_t most = engine.config().context;
  const bool larger_helps = most >= static_cast<int64_t>(tokens.size() + more);
  return Status(
      Code::kContextFull,
      fmt::format("{} tokens do not fit into the context of {}{}: shorten the text{}", more, engine.sizes().context,
                  tokens.empty() ? "" : fmt::format(", of which {} are taken", tokens.size()),
                  larger_helps ? fmt::format(" or raise the context (-c, up to {})", most) : ""));
}

Status Session::Impl::check_ids(std::span<const int32_t> more) const {
  for (const int32_t id : more) {
    if (id < 0 || id >= engine.config().vocab) {
      return Status(Code::kInvalid,
                    fmt::format("token {} is outside of the vocabulary of {}", id, engine.config().vocab));
    }
  }
  return ok_status();
}

Status Session::Impl::pass(std::span<const int32_t> more, int64_t kept, const CancelFlag* cancel) {
  model::SequenceRun run{.seq = seq, .first = 0, .count = static_cast<int64_t>(more.size())};
  outputs.clear();
  for (int64_t i = run.count - kept; i < run.count; ++i) outputs.push_back(i);
  has_logits = false;
  STOKE_TRY(engine.append(more, std::span(&run, 1), outputs, cancel));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return ok_status();
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;

Status Session::prefill(std::span<const int32_t> more, const CancelFlag* cancel) {
  return score(more, static_cast<int64_t>(more.size()), nullptr, cancel);
}

Status Session::score(std::span<const int32_t> more, int64_t first, const LogitsCallback& callback,
                      const CancelFlag* cancel) {
  STOKE_TRY(impl_->check_room(more.size()));
  STOKE_TRY(impl_->check_ids(more));
  if (more.empty()) return ok_status();
  engine::Engine& engine = impl_->engine;
  const auto start = engine::now();
  if (!impl_->waiting) impl_->waiting_since = start;
  impl_->waiting = true;
  const auto size = static_cast<int64_t>(more.size());
  double shown_s = 0;
  for (int64_t begin = 0; begin < size; begin += engine.sizes().batch) {
    const int64_t count = std::min(engine.sizes().batch, size - begin);
    const bool last = begin + count == size;
    const sys::TraceSpan span(engine.trace(), 0, sys::TraceKind::kPrompt, count, length());
    // Rows whose logits are shown, or at least the very last, which is kept.
    const int64_t shown = std::clamp<int64_t>(begin + count - first, 0, count);
    const int64_t kept = last ? std::max<int64_t>(shown, 1) : shown;
    STOKE_TRY(impl_->pass(more.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), kept, cancel));
    engine.count_prompt(count);
    const auto vocab = static_cast<size_t>(engine.config().vocab);
    for (int64_t at = 0; at < shown; at += engine::kScoreRows) {
      const int64_t rows = std::min(engine::kScoreRows, shown - at);
      STOKE_TRY(engine.logits(at, rows, engine.score_rows().data()));
      const auto show_start = engine::now();
      for (int64_t row = 0; row < rows; ++row) {
        callback(begin + count - shown + at + row,
                 engine.score_rows().subspan(static_cast<size_t>(row) * vocab, vocab));
      }
      shown_s += engine::seconds_since(show_start);
    }
    if (last) STOKE_TRY(engine.logits(kept - 1, 1, impl_->logits.data()));
  }
  impl_->has_logits = true;
  engine.add_prefill(size, engine::seconds_since(start) - shown_s);
  return ok_status();
}

std::span<const int32_t> Session::tokens() const { return impl_->tokens; }

std::span<const float> Session::logits() const {
  return impl_->has_logits ? std::span<const float>(impl_->logits) : std::span<const float>();
}

int64_t Session::length() const { return static_cast<int64_t>(impl_->tokens.size()); }

Result<std::unique_ptr<Session>> Session::fork() const {
  auto impl = std::make_unique<Impl>(impl_->engine, impl_->engine.pool().fork(impl_->seq));
  impl->tokens.assign(impl_->tokens.begin(), impl_->tokens.end());  // assign keeps the reserved capacity
  impl->has_logits = impl_->has_logits;
  if (impl->has_logits) impl->logits = impl_->logits;
  return std::make_unique<Session>(std::move(impl));
}

void Session::truncate(int64_t length) {
  CHECK(length >= 0 && length <= this->length());
  if (length == this->length()) return;
  impl_->engine.pool().truncate(impl_->seq, length);
  impl_->tokens.resize(static_cast<size_t>(length));
  impl_->has_logits = false;
}

Status Session::extend_to(std::span<const int32_t> wanted, const CancelFlag* cancel) {
  const auto end = std::mismatch(wanted.begin(), wanted.end(), impl_->tokens.begin(), impl_->tokens.end()).first;
  auto common = end - wanted.begin();
  // The last token is computed again where nothing new would give its logits.
  const bool logits_at_hand = impl_->has_logits && common == length();
  if (common == std::ssize(wanted) && common > 0 && !logits_at_hand) --common;
  truncate(common);
  return prefill(wanted.subspan(static_cast<size_t>(common)), cancel);
}

}  // namespace stoke
