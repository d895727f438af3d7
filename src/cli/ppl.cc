// stoke ppl: perplexity, as llama-perplexity measures it (perplexity.h), in windows of --ctx tokens.
#include <fmt/format.h>

#include <utility>
#include <vector>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/perplexity.h"
#include "cli/standard_streams.h"

namespace stoke::cli {
namespace {

struct PplFlags {
  ModelFlags model;
  PromptFlags prompt;
  OutputFlags output;
  int64_t windows = 0;
};

int run(PplFlags flags) {
  if (flags.model.context == 0) flags.model.context = kPplWindow;
  if (flags.model.context < 4) return fail_usage("--ctx is the window here: at least 4", "ppl");
  const Interrupt interrupt;
  std::vector<int32_t> tokens;
  // While the whole budget is there for it: a text of a MiB takes more than some budgets leave later.
  const auto read_tokens = [&](const Tokenizer& tokenizer) -> Result<int64_t> {
    auto text = read_prompt(flags.prompt);
    if (!text.ok()) return text.status();
    auto encoded = tokenizer.encode(*text);
    if (!encoded.ok()) return encoded.status();
    tokens = std::move(*encoded);
    return flags.model.context;
  };
  auto opened = open_model(flags.model, flags.output, interrupt, {.context_needed = read_tokens});
  if (!opened.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(opened.status());
  Model& model = **opened;
  const auto scored = score_tokens(
      model, tokens,
      {.window = flags.model.context, .windows_max = flags.windows, .progress = is_terminal(2) && !flags.output.quiet},
      interrupt);
  if (interrupt.raised()) return interrupt.exit_status();
  if (!scored.ok()) return fail(scored.status());
  const PplScore& score = *scored;
  if (flags.output.json) {
    print_json(Json{{"perplexity", score.perplexity()},
                    {"nll", score.mean()},
                    {"tokens_scored", score.tokens},
                    {"windows", score.windows},
                    {"stats", stats_json(model.stats())}});
  } else {
    fmt::print("perplexity {:.4f} (nll {:.6f}, {} scored in {} of {})\n", score.perplexity(), score.mean(),
               counted(score.tokens, "token"), counted(score.windows, "window"), flags.model.context);
  }
  if (flags.output.stats) tell("{}\n", stats_line(model.stats()));
  return 0;
}

}  // namespace

void add_ppl(CLI::App& app, Context& context) {
  auto& flags = context.make<PplFlags>();
  auto* verb = app.add_subcommand("ppl", "perplexity over a text, in windows of --ctx tokens (512)");
  add_model_flags(*verb, flags.model, "tokens of a window, of which the second half is scored (default: 512)");
  add_prompt_flags(*verb, flags.prompt);
  verb->add_option("--windows", flags.windows, "stop after this many")->check(at_least(1));
  add_output_flags(*verb, flags.output);
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
