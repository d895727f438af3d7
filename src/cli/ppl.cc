// stoke ppl: perplexity, as llama-perplexity measures it.
//
// The text's tokens (a BOS first where the model asks for one) are cut into windows of --ctx tokens; a rest is dropped.
// Each window is computed on its own, its first token replaced by the BOS where the model asks for one, and the tokens
// of its second half are scored: ctx - ctx/2 - 1 of them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/flags.h"
#include "cli/output.h"

namespace stoke::cli {
namespace {

struct PplFlags {
  ModelFlags model;
  PromptFlags prompt;
  OutputFlags output;
  int64_t windows = 0;
};

struct Score {
  double nll = 0;  // sum
  int64_t tokens = 0;
  int64_t windows = 0;
  double mean() const { return nll / static_cast<double>(tokens); }
};

double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  const float peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - peak));
  return std::log(sum) + static_cast<double>(peak) - static_cast<double>(logits[static_cast<size_t>(token)]);
}

struct Windows {
  std::vector<int32_t> tokens;
  int64_t size = 0;
  int64_t count = 0;
};

Result<Windows> cut(const PplFlags& flags, const Tokenizer& tokenizer) {
  auto text = read_prompt(flags.prompt);
  if (!text.ok()) return text.status();
  auto tokens = tokenizer.encode(*text);
  if (!tokens.ok()) return tokens.status();
  Windows windows{.tokens = std::move(*tokens), .size = flags.model.context};
  windows.count = static_cast<int64_t>(windows.tokens.size()) / windows.size;
  if (windows.count == 0) {
    return Status(Code::kInvalid,
                  fmt::format("the text has {} tokens, fewer than one window of {}: give more text or a "
                              "smaller --ctx",
                              windows.tokens.size(), windows.size));
  }
  if (flags.windows > 0) windows.count = std::min(windows.count, flags.windows);
  return windows;
}

Status score_window(Model& model, Session& session, std::vector<int32_t> window, const Interrupt& interrupt,
                    Score* score) {
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

int run(PplFlags flags) {
  constexpr int64_t kWindow = 512;
  if (flags.model.context == 0) flags.model.context = kWindow;
  if (flags.model.context < 4) return fail_usage("--ctx is the window here: at least 4");
  const Interrupt interrupt;
  auto opened = open_model(flags.model, flags.output, interrupt);
  if (!opened.ok()) return interrupt.raised() ? kExitInterrupted : fail(opened.status());
  Model& model = **opened;
  auto windows = cut(flags, model.tokenizer());
  if (!windows.ok()) return fail(windows.status());
  auto session = model.new_session();
  if (!session.ok()) return fail(session.status());
  Score score;
  const bool progress = is_terminal(2) && !flags.output.quiet;
  for (int64_t i = 0; i < windows->count; ++i) {
    const auto begin = windows->tokens.begin() + i * windows->size;
    const Status status = score_window(model, **session, {begin, begin + windows->size}, interrupt, &score);
    if (interrupt.raised()) return kExitInterrupted;
    if (!status.ok()) return fail(status);
    if (progress)
      fmt::print(stderr, "\r{}/{} windows, perplexity {:.4f} ", i + 1, windows->count, std::exp(score.mean()));
  }
  if (progress) fmt::print(stderr, "\r\033[K");
  if (flags.output.json) {
    print_json(Json{{"perplexity", std::exp(score.mean())},
                    {"nll", score.mean()},
                    {"tokens_scored", score.tokens},
                    {"windows", score.windows},
                    {"stats", stats_json(model.stats())}});
  } else {
    fmt::print("perplexity {:.4f} (nll {:.6f}, {} tokens scored in {} windows of {})\n", std::exp(score.mean()),
               score.mean(), score.tokens, score.windows, windows->size);
  }
  if (flags.output.stats) fmt::print(stderr, "{}\n", stats_line(model.stats()));
  return 0;
}

}  // namespace

void add_ppl(CLI::App& app, Context& context) {
  auto& flags = context.make<PplFlags>();
  auto* verb = app.add_subcommand("ppl", "perplexity over a text, in windows of --ctx tokens (512)");
  add_model_flags(*verb, flags.model);
  add_prompt_flags(*verb, flags.prompt);
  verb->add_option("--windows", flags.windows, "stop after this many")->check(CLI::PositiveNumber);
  add_output_flags(*verb, flags.output);
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
