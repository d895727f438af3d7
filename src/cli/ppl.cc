// stoke ppl: perplexity, as llama-perplexity measures it (perplexity.h), in windows of --ctx tokens.
#include <fmt/format.h>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/perplexity.h"

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
  auto opened = open_model(flags.model, flags.output, interrupt);
  if (!opened.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(opened.status());
  Model& model = **opened;
  auto text = read_prompt(flags.prompt);
  if (!text.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(text.status());
  const auto scored = score_text(
      model, *text,
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
  if (flags.output.stats) fmt::print(stderr, "{}\n", stats_line(model.stats()));
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
