// The C face of the engine. Exceptions (out of memory) end here; failures' text is kept for the calling thread.
#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "stoke/stoke.h"
#include "stoke/stoke_c.h"

struct stoke_model {
  std::unique_ptr<stoke::Model> model;
};

struct stoke_session {
  std::unique_ptr<stoke::Session> session;
  const stoke::Model* model;
  stoke::CancelFlag cancel{false};
};

namespace {

static_assert(static_cast<int>(stoke::Code::kCancelled) == STOKE_CANCELLED);
static_assert(static_cast<int>(stoke::Code::kNoMemory) == STOKE_NO_MEMORY);
static_assert(static_cast<int>(stoke::StopReason::kCallback) == STOKE_STOP_CALLBACK);

std::string& last_error() {
  thread_local std::string text;
  return text;
}

stoke_code report(const stoke::Status& status) {
  if (!status.ok()) last_error() = status.message();
  return static_cast<stoke_code>(status.code());
}

// Runs what returns a Status.
template <typename F>
stoke_code guarded(F&& work) {
  try {
    return report(work());
  } catch (const std::bad_alloc&) {
    return report({stoke::Code::kNoMemory, "out of memory"});
  } catch (const std::exception& error) {
    return report({stoke::Code::kInvalid, error.what()});
  }
}

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

stoke::ModelOptions model_options(const stoke_model_options& from) {
  stoke::ModelOptions options;
  options.memory_bytes = from.memory_bytes;
  options.context = from.context;
  options.batch = from.batch;
  options.threads = from.threads;
  options.sequences = std::max(from.sequences, 1);
  options.isa = text_or_empty(from.isa);
  options.kv_type = text_or_empty(from.kv_type);
  options.ffn_act = text_or_empty(from.ffn_act);
  options.quant = text_or_empty(from.quant);
  return options;
}

stoke::GenerateOptions generate_options(const stoke_generate_options& from) {
  stoke::GenerateOptions options;
  options.max_tokens = from.max_tokens;
  options.ignore_eos = from.ignore_eos != 0;
  stoke::SamplingOptions& sampling = options.sampling;
  sampling.seed = from.seed;
  sampling.temperature = from.temperature;
  sampling.top_k = from.top_k;
  sampling.top_p = from.top_p;
  sampling.min_p = from.min_p;
  sampling.typical_p = from.typical_p;
  sampling.repeat_penalty = from.repeat_penalty;
  sampling.frequency_penalty = from.frequency_penalty;
  sampling.presence_penalty = from.presence_penalty;
  sampling.penalty_last_n = from.penalty_last_n;
  return options;
}

stoke::Status give_tokens(const stoke::Result<std::vector<int32_t>>& found, int32_t* tokens, size_t capacity,
                          size_t* count) {
  if (!found.ok()) return found.status();
  const std::vector<int32_t>& ids = found.value();
  std::copy_n(ids.begin(), std::min(capacity, ids.size()), tokens);
  *count = ids.size();
  return {};
}

stoke::Status open_session(stoke::Result<std::unique_ptr<stoke::Session>> made, const stoke::Model* model,
                           stoke_session** session) {
  if (!made.ok()) return made.status();
  *session = new stoke_session{std::move(*made), model};
  return {};
}

}  // namespace

extern "C" {

const char* stoke_version(void) { return stoke::version(); }
const char* stoke_last_error(void) { return last_error().c_str(); }

void stoke_model_defaults(stoke_model_options* options) { *options = stoke_model_options{}; }

void stoke_generate_defaults(stoke_generate_options* options) {
  const stoke::GenerateOptions defaults;
  const stoke::SamplingOptions& s = defaults.sampling;
  *options = {.max_tokens = defaults.max_tokens,
              .seed = s.seed,
              .temperature = s.temperature,
              .top_p = s.top_p,
              .min_p = s.min_p,
              .typical_p = s.typical_p,
              .repeat_penalty = s.repeat_penalty,
              .frequency_penalty = s.frequency_penalty,
              .presence_penalty = s.presence_penalty,
              .top_k = s.top_k,
              .penalty_last_n = s.penalty_last_n,
              .ignore_eos = 0};
}

stoke_code stoke_model_open(const char* path, const stoke_model_options* options, stoke_model** model) {
  *model = nullptr;
  return guarded([&]() -> stoke::Status {
    auto opened = stoke::Model::open(path, model_options(options == nullptr ? stoke_model_options{} : *options));
    if (!opened.ok()) return opened.status();
    *model = new stoke_model{std::move(*opened)};
    return {};
  });
}

void stoke_model_free(stoke_model* model) { delete model; }
int64_t stoke_model_context(const stoke_model* model) { return model->model->context(); }
int64_t stoke_model_vocabulary(const stoke_model* model) { return model->model->info().vocabulary; }

stoke_code stoke_tokenize(const stoke_model* model, const char* text, size_t text_bytes, int32_t* tokens,
                          size_t capacity, size_t* count) {
  *count = 0;
  return guarded([&] {
    return give_tokens(model->model->tokenizer().encode({text, text_bytes}), tokens, capacity, count);
  });
}

stoke_code stoke_tokenize_chat(const stoke_model* model, const char* system, const char* user, int32_t* tokens,
                               size_t capacity, size_t* count) {
  *count = 0;
  return guarded([&] {
    std::vector<stoke::ChatMessage> messages;
    if (system != nullptr) messages.push_back({"system", system});
    messages.push_back({"user", user});
    return give_tokens(model->model->tokenizer().encode_chat(messages), tokens, capacity, count);
  });
}

stoke_code stoke_session_new(stoke_model* model, stoke_session** session) {
  *session = nullptr;
  return guarded([&] { return open_session(model->model->new_session(), model->model.get(), session); });
}

stoke_code stoke_session_fork(const stoke_session* session, stoke_session** fork) {
  *fork = nullptr;
  return guarded([&] { return open_session(session->session->fork(), session->model, fork); });
}

void stoke_session_free(stoke_session* session) { delete session; }

stoke_code stoke_session_prefill(stoke_session* session, const int32_t* tokens, size_t count) {
  session->cancel = false;
  return guarded([&] { return session->session->prefill({tokens, count}, &session->cancel); });
}

stoke_code stoke_session_generate(stoke_session* session, const stoke_generate_options* options,
                                  stoke_token_callback callback, void* user, stoke_stop* stop) {
  session->cancel = false;
  return guarded([&]() -> stoke::Status {
    stoke_generate_options wanted;
    stoke_generate_defaults(&wanted);
    stoke::GenerateOptions generate = generate_options(options == nullptr ? wanted : *options);
    generate.cancel = &session->cancel;
    stoke::TokenCallback show;
    if (callback != nullptr) {
      show = [&](const stoke::TokenEvent& event) {
        return callback(user, event.id, event.text.data(), event.text.size()) != 0;
      };
    }
    auto done = session->session->generate(generate, show);
    if (!done.ok()) return done.status();
    if (stop != nullptr) *stop = static_cast<stoke_stop>(done->stop_reason);
    return {};
  });
}

const float* stoke_session_logits(const stoke_session* session) {
  const auto logits = session->session->logits();
  return logits.empty() ? nullptr : logits.data();
}

int64_t stoke_session_length(const stoke_session* session) { return session->session->length(); }

void stoke_session_truncate(stoke_session* session, int64_t length) {
  session->session->truncate(std::clamp<int64_t>(length, 0, session->session->length()));
}

void stoke_session_cancel(stoke_session* session) { session->cancel = true; }

}  // extern "C"
