// Session::generate: logits to token to text to callback, until something stops it.
#include <xxhash.h>

#include <algorithm>

#include "engine/session_impl.h"
#include "engine/stop_filter.h"
#include "engine/tokenizer_impl.h"
#include "sampling/sampler.h"
#include "text/utf8_stream.h"

namespace stoke {
namespace {

// XXH3-64 over the logits of the generated positions.
class LogitsHash {
 public:
  explicit LogitsHash(bool on) : state_(on ? XXH3_createState() : nullptr) {
    if (on) XXH3_64bits_reset(state_.get());
  }
  void add(std::span<const float> logits) {
    if (state_ != nullptr) XXH3_64bits_update(state_.get(), logits.data(), logits.size_bytes());
  }
  uint64_t value() const { return state_ == nullptr ? 0 : XXH3_64bits_digest(state_.get()); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

// One generation under way. After construction, a step allocates nothing unless the text library does.
class Generating {
 public:
  Generating(Session::Impl& session, const GenerateOptions& options, const TokenCallback& callback)
      : session_(session),
        options_(options),
        callback_(callback),
        sampler_(options.sampling,
                 {.vocabulary = session.engine.config().vocab, .history_max = session.engine.sizes().context}),
        stream_(*session.engine.tokenizer().impl().tokenizer),
        filter_(options.stop, &result_.text),
        hash_(options.hash_logits) {
    const int64_t room = session.engine.sizes().context - std::ssize(session.tokens) + 1;
    const int64_t most = options.max_tokens < 0 ? room : std::min(room, options.max_tokens);
    constexpr size_t kBytesPerToken = 16;  // generous: common tokens have 4 to 6
    result_.tokens.reserve(static_cast<size_t>(most));
    result_.text.reserve(static_cast<size_t>(most) * kBytesPerToken);
    for (const int32_t token : session.tokens) sampler_.accept(token);
  }

  Result<Generation> run() {
    if (options_.max_tokens == 0) return std::move(result_);
    bool going = true;
    while (going) {
      STOKE_ASSIGN(going, step());
    }
    flush_text();
    result_.logits_hash = hash_.value();
    session_.engine.timings().sample_memory();
    return std::move(result_);
  }

 private:
  // Chooses a token and, unless it ends the generation, appends it. False when the generation is over.
  Result<bool> step() {
    if (cancelled()) return stop(StopReason::kCancelled);
    const auto start = engine::now();
    STOKE_ASSIGN(const int32_t token, sampler_.sample(session_.logits));
    if (session_.waiting) {
      session_.waiting = false;
      session_.engine.timings().set_first_token(engine::seconds_since(session_.waiting_since));
    }
    if (!options_.ignore_eos && session_.engine.tokenizer().is_eos(token)) return stop(StopReason::kEos);
    hash_.add(session_.logits);
    sampler_.accept(token);
    result_.tokens.push_back(token);
    const std::string_view piece = filter_.push(stream_.push(token));
    const double chosen_s = engine::seconds_since(start);
    const bool wanted = !callback_ || callback_({.id = token, .text = piece, .logits = session_.logits});
    if (filter_.stopped()) return stop(StopReason::kStop);
    if (!wanted) return stop(StopReason::kCallback);
    if (std::ssize(result_.tokens) == options_.max_tokens) return stop(StopReason::kLength);
    if (std::ssize(session_.tokens) == session_.engine.sizes().context) return stop(StopReason::kContext);
    return append(token, chosen_s);
  }

  Result<bool> append(int32_t token, double chosen_s) {
    const auto start = engine::now();
    const sys::TraceSpan span(session_.engine.trace(), 0, sys::TraceKind::kToken, 1, std::ssize(session_.tokens));
    Status status = session_.pass(std::span(&token, 1), 1, options_.cancel);
    if (status.ok()) status = session_.engine.logits(0, 1, session_.logits.data());
    if (status.code() == Code::kCancelled && cancelled()) return stop(StopReason::kCancelled);
    STOKE_TRY(status);
    session_.has_logits = true;
    session_.engine.add_step(1, chosen_s + engine::seconds_since(start));
    return true;
  }

  bool cancelled() const { return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed); }

  bool stop(StopReason reason) {
    result_.stop_reason = reason;
    return false;
  }

  // Shows what was held back: a character that never became complete, what might have become a stop text.
  void flush_text() {
    if (filter_.stopped()) return;
    const std::string_view rest = filter_.finish(stream_.finish());
    if (!rest.empty() && callback_) callback_({.id = -1, .text = rest});
  }

  Session::Impl& session_;
  const GenerateOptions& options_;
  const TokenCallback& callback_;
  Generation result_;
  sampling::Sampler sampler_;
  text::TokenStream stream_;
  engine::StopFilter filter_;
  LogitsHash hash_;
};

}  // namespace

const char* name(StopReason reason) {
  switch (reason) {
    case StopReason::kEos:
      return "eos";
    case StopReason::kLength:
      return "length";
    case StopReason::kContext:
      return "context";
    case StopReason::kStop:
      return "stop";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kCallback:
      return "callback";
  }
  return "unknown";
}

Result<Generation> Session::generate(const GenerateOptions& options, const TokenCallback& callback) {
  if (!impl_->has_logits) {
    return Status(Code::kInvalid, "nothing to continue: prefill at least one token before generating");
  }
  STOKE_TRY(sampling::check_options(options.sampling, impl_->engine.config().vocab));
  return Generating(*impl_, options, callback).run();
}

}  // namespace stoke
