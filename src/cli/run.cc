// stoke run: completes a prompt.
#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/standard_streams.h"

namespace stoke::cli {
namespace {

struct RunOptions {
  ModelFlags model;
  PromptFlags prompt;
  SamplingFlags sampling;
  OutputFlags output;
  bool chat = false;
  std::string system;
};

Result<std::vector<int32_t>> prompt_tokens(const RunOptions& options, const Tokenizer& tokenizer) {
  PromptFlags flags = options.prompt;
  flags.terminal_note = options.output.quiet
                            ? ""
                            : fmt::format(
                                  "reading the prompt from standard input; Ctrl-D ends it (to talk: stoke chat "
                                  "{})",
                                  options.model.model);
  auto text = read_prompt(flags);
  if (!text.ok()) return text.status();
  if (!options.chat) return tokenizer.encode(*text);
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", *text});
  return tokenizer.encode_chat(messages);
}

// The prompt's tokens, read once, when they are first asked for.
class Prompt {
 public:
  explicit Prompt(const RunOptions& options) : options_(options) {}

  const Result<std::vector<int32_t>>& tokens(const Tokenizer& tokenizer) {
    if (!tokens_) tokens_.emplace(prompt_tokens(options_, tokenizer));
    return *tokens_;
  }
  // For the prompt and all of -n; without -n, for an answer worth the name.
  Result<int64_t> context_needed(const Tokenizer& tokenizer) {
    constexpr int64_t kAnswer = 256;
    const auto& prompt = tokens(tokenizer);
    if (!prompt.ok()) return prompt.status();
    return std::ssize(*prompt) + (options_.sampling.predict < 0 ? kAnswer : options_.sampling.predict);
  }

 private:
  const RunOptions& options_;
  std::optional<Result<std::vector<int32_t>>> tokens_;
};

// Writes text as it comes; false once nobody reads it.
bool write_piece(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

Json run_json(const Generation& generation, size_t prompt_count, uint64_t seed, const Stats& stats) {
  return Json{{"text", generation.text},
              {"tokens", generation.tokens},
              {"prompt_tokens", prompt_count},
              {"generated_tokens", generation.tokens.size()},
              {"stop_reason", name(generation.stop_reason)},
              {"seed", seed},
              {"logits_hash", hex(generation.logits_hash)},
              {"stats", stats_json(stats)}};
}

int run(const RunOptions& options) {
  if (!options.system.empty() && !options.chat) return fail_usage("--system needs --chat", "run");
  const Interrupt interrupt;
  LiveLine live(options.output.quiet, !options.output.json);
  Prompt prompt_once(options);
  const auto needed = [&](const Tokenizer& tokenizer) { return prompt_once.context_needed(tokenizer); };
  auto opened = open_model(options.model, options.output, interrupt, {.live = &live, .context_needed = needed});
  if (!opened.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(opened.status());
  Model& model = **opened;
  auto generate = generate_options(options.sampling, model.tokenizer());
  if (!generate.ok()) return fail(generate.status());
  const auto& prompt = prompt_once.tokens(model.tokenizer());
  if (!prompt.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(prompt.status());
  if (prompt->empty()) return fail({Code::kInvalid, "the prompt is empty: give -p TEXT, -f FILE or standard input"});

  auto session = model.new_session();
  if (!session.ok()) return fail(session.status());
  generate->cancel = &interrupt.flag();
  generate->hash_logits = options.output.json;
  live.begin();
  const Status prefilled = (*session)->prefill(*prompt, &interrupt.flag());
  prefilled.ok() ? live.text_follows() : live.end();
  if (!prefilled.ok() && !interrupt.raised()) return fail(prefilled);
  Generation generation;
  generation.stop_reason = StopReason::kCancelled;
  if (prefilled.ok()) {
    TokenCallback show;
    if (!options.output.json) show = [](const TokenEvent& event) { return write_piece(event.text); };
    auto generated = (*session)->generate(*generate, show);
    live.end();
    if (!generated.ok()) return fail(generated.status());
    generation = std::move(*generated);
  }
  if (options.output.json) {
    print_json(run_json(generation, prompt->size(), generate->sampling.seed, model.stats()));
  } else if (is_terminal(1) && !generation.text.ends_with('\n')) {
    write_piece("\n");
  }
  // Where both streams go to one file, the line must not stick to the text.
  const bool sticks = !options.output.json && !is_terminal(1) && !generation.text.ends_with('\n');
  if (options.output.stats) {
    const SamplingOptions& sampling = generate->sampling;
    const std::string drawn = sampling.temperature > 0 ? fmt::format(", seed {}", sampling.seed) : "";
    tell("{}{}{}\n", sticks ? "\n" : "", stats_line(model.stats()), drawn);
  }
  return close_trace(model, generation.stop_reason == StopReason::kCancelled ? interrupt.exit_status() : 0);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  auto& options = context.make<RunOptions>();
  auto* verb = app.add_subcommand("run", "complete a prompt; prints the completion only");
  add_model_flags(*verb, options.model);
  add_prompt_flags(*verb, options.prompt, "PROMPT");
  verb->add_flag("--chat", options.chat, "put the prompt into the model's chat template, as a user's message");
  verb->add_option("--system", options.system, "with --chat: the system message");
  add_sampling_flags(*verb, options.sampling);
  add_measuring_flags(*verb, options.model);
  add_output_flags(*verb, options.output);
  add_trace_flag(*verb, options.output);
  verb->footer(
      "Ctrl-C stops cleanly: what was generated stays, statistics are printed, the exit status is 130 (143 for "
      "SIGTERM).");
  verb->callback([&] { context.run([&options] { return run(options); }); });
}

}  // namespace stoke::cli
