// stoke inspect: what is in a model file, and what it needs to run here.
#include <fmt/format.h>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/verify.h"

namespace stoke::cli {
namespace {

struct InspectFlags {
  ModelFlags model;
  bool verify = false;
  std::string hashes;
  bool json = false;
};

Json known(double value) { return value > 0 ? Json(value) : Json(nullptr); }

Json inspect_json(const Fit& fit) {
  Json types = Json::array();
  for (const auto& share : fit.types) {
    types.push_back({{"type", share.type}, {"tensors", share.tensors}, {"bytes", share.bytes}});
  }
  return Json{{"name", fit.info.name},
              {"architecture", fit.info.architecture},
              {"parameters", fit.info.parameters},
              {"quantization", fit.info.quantization},
              {"layers", fit.info.layers},
              {"width", fit.width},
              {"heads", fit.heads},
              {"kv_heads", fit.kv_heads},
              {"vocabulary", fit.info.vocabulary},
              {"experts", fit.experts},
              {"experts_used", fit.experts_used},
              {"activation", fit.activation},
              {"store", fit.store.empty() ? Json() : Json(fit.store)},
              {"context_length", fit.info.context_length},
              {"chat_template", fit.info.has_chat_template},
              {"files", fit.files},
              {"types", types},
              {"context", fit.context},
              {"weights_bytes", fit.weights_bytes},
              {"kv_bytes", fit.report.kv},
              {"memory_min_bytes", fit.memory_min_bytes},
              {"memory_full_bytes", fit.memory_full_bytes},
              {"budget_bytes", fit.report.budget},
              {"budget_source", fit.report.budget_source},
              {"fits", fit.fits},
              {"predicted_decode_tokens_per_s", known(fit.report.forecast.tokens_per_s)},
              {"predicted_decode_tokens_per_s_best", known(fit.report.forecast.tokens_per_s_best)},
              {"predicted_bytes_read_per_token", fit.report.forecast.bytes_per_token},
              {"predicted_from", fit.report.forecast.source},
              {"advice", fit.advice}};
}

std::string count(int64_t n) {
  if (n >= 1000000000) return fmt::format("{:.2f} B", static_cast<double>(n) * 1e-9);
  return fmt::format("{:.1f} M", static_cast<double>(n) * 1e-6);
}

// `context_given`: -c names it.
void print_table(const Fit& fit, bool context_given) {
  const auto row = [](const char* what, const std::string& value) { fmt::print("{:<16} {}\n", what, value); };
  row("name", fit.info.name);
  row("architecture", fmt::format("{}, {} layers, width {}, {} heads ({} of KV), FFN {}", fit.info.architecture,
                                  fit.info.layers, fit.width, fit.heads, fit.kv_heads, fit.activation));
  if (fit.experts > 0) row("experts", fmt::format("{}, of which a token takes {}", fit.experts, fit.experts_used));
  row("parameters", count(fit.info.parameters));
  row("vocabulary",
      fmt::format("{}{}", fit.info.vocabulary, fit.info.has_chat_template ? ", with a chat template" : ""));
  row("context", fmt::format("{} tokens; {} {}", fit.info.context_length, fit.context,
                             context_given ? "here, as --ctx says" : "unless --ctx says otherwise"));
  if (!fit.store.empty()) row("neuron store", fit.store);
  row("quantization", fit.info.quantization);
  for (const auto& share : fit.types) {
    row("", fmt::format("{:<7} {:>5} tensors {:>11}", share.type, share.tensors, format_size(share.bytes)));
  }
  row("files", std::to_string(fit.files));
  const MemoryReport& r = fit.report;
  row("memory needed", fmt::format("{} = {}", format_size(fit.memory_full_bytes), memory_sum(r)));
  row("at the least", fmt::format("{} for a context of {}", format_size(fit.memory_min_bytes), fit.context));
  row("here", fmt::format("{} ({})", format_size(r.budget), r.budget_source));
  row("verdict", fit.advice);
  if (!context_given && r.budget < fit.memory_min_bytes) row("", "without -c, run and chat try shorter contexts, too");
}

int run(const InspectFlags& flags) {
  auto path = resolve_model(flags.model.model);
  if (!path.ok()) return fail(path.status());
  auto fit = inspect(*path, model_options(flags.model));
  if (!fit.ok()) return fail(fit.status());
  Json json = inspect_json(*fit);
  if (!flags.json) print_table(*fit, flags.model.context > 0);
  if (flags.verify) {
    const Interrupt interrupt;
    const auto verified = verify_model(*path, flags.hashes, is_terminal(2), interrupt);
    if (interrupt.raised()) return interrupt.exit_status();
    if (!verified.ok()) return fail(verified.status());
    json["verified"] = *verified;
    if (!flags.json) fmt::print("{:<16} {}\n", "verified", *verified);
  }
  if (flags.json) print_json(json);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  auto& flags = context.make<InspectFlags>();
  auto* verb = app.add_subcommand("inspect", "what is in the file, what it needs to run, and how well it fits here");
  add_model_flags(*verb, flags.model,
                  "tokens of context that the need is told for (default: 4096 or the model's, whichever is less)");
  verb->add_flag("--verify", flags.verify, "read all of it: a store against its checksums, others against a hash list");
  verb->add_option("--hashes", flags.hashes, "that list, as sha256sum writes it (default: SHA256SUMS beside the model)")
      ->type_name("FILE");
  verb->add_flag("--json", flags.json, "one JSON object on standard output");
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
