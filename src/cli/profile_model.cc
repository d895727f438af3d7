#include "cli/profile_model.h"

#include <fmt/format.h>

#include <cstdio>

#include "cli/output.h"
#include "cli/outputs.h"
#include "cli/perplexity.h"
#include "cli/standard_streams.h"
#include "engine/record_firing.h"

namespace stoke::cli {
namespace {

double fired_share(const formats::FiringStats& stats) {
  double fired = 0;
  double computed = 0;
  for (const formats::LayerFiring& layer : stats.layers) {
    for (const uint32_t count : layer.fired) fired += count;
    for (const int64_t tokens : layer.tokens) computed += static_cast<double>(tokens * layer.neurons());
  }
  return computed == 0 ? 0 : fired / computed;
}

Result<formats::FiringStats> record(const ProfileModelFlags& flags, const Interrupt& interrupt) {
  STOKE_ASSIGN(const std::string path, resolve_model(flags.model.model));
  STOKE_TRY(check_outputs({{"--output", flags.output}}, {{"the model", path}, {"--file", flags.file}}));
  engine::RecordOptions options{.model = path, .how = model_options(flags.model), .tokens_max = flags.tokens};
  options.how.cancel = &interrupt.flag();
  if (options.how.context == 0) options.how.context = kPplWindow;
  STOKE_ASSIGN(options.text, read_prompt({.file = flags.file}));
  const bool shows = !flags.quiet && is_terminal(2);
  if (shows) {
    options.progress = [](int64_t done, int64_t total) {
      tell("\r{} of {} tokens ({} %)\x1b[K", done, total, done * 100 / total);
    };
  }
  auto stats = engine::record_firing(options);
  if (shows) tell("\r\x1b[K");
  return stats;
}

}  // namespace

int profile_model(const ProfileModelFlags& flags) {
  const Interrupt interrupt;
  const auto stats = record(flags, interrupt);
  if (!stats.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(stats.status());
  const Status written = formats::write_firing(*stats, flags.output);
  if (!written.ok()) return fail(written);
  if (flags.json) {
    print_json(Json{{"output", flags.output},
                    {"tokens", stats->tokens},
                    {"layers", stats->layers.size()},
                    {"fired_share", fired_share(*stats)}});
  } else if (!flags.quiet) {
    fmt::print("{}: {} tokens through {} layers, {:.1f} % of the gates computed fired\n", flags.output, stats->tokens,
               stats->layers.size(), 100 * fired_share(*stats));
  }
  return 0;
}

}  // namespace stoke::cli
