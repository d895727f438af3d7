// stoke synth: writes a random model of a named or given shape, for measuring speed (formats/synth.h).
#include "formats/synth.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/outputs.h"
#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {
namespace {

// Sizes of 0 and empty texts mean: not given, so the shape's own stand.
struct SynthFlags {
  std::string shape;
  std::string arch;
  std::string output;
  std::string type = "q4_0";
  std::string ffn_act;
  uint64_t seed = 0;
  int64_t layers = 0;
  int64_t dim = 0;
  int64_t ffn = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t experts = 0;
  int64_t experts_used = 0;
  int64_t context = 0;
  std::string skew = "published";
  std::string stats_out;
  formats::SynthActivity activity;
  bool no_rates = false;
  bool tied = false;
  bool json = false;
  bool quiet = false;
};

Result<formats::SynthShape> shape_of(const SynthFlags& flags) {
  formats::SynthShape shape;
  if (flags.shape.empty()) {
    STOKE_ASSIGN(shape, formats::free_shape(flags.arch.empty() ? "llama" : flags.arch));
  } else {
    auto named = formats::find_shape(flags.shape);
    if (!named) {
      return Status(Code::kInvalid, fmt::format("{}: no shape of that name; there are {}; or give --dim, --layers, "
                                                "--ffn and --heads instead",
                                                flags.shape, fmt::join(formats::shape_names(), ", ")));
    }
    shape = std::move(*named);
    if (flags.layers > shape.layers) {
      return Status(Code::kInvalid, fmt::format("--layers {}: {} has {}, and can only be cut short", flags.layers,
                                                flags.shape, shape.layers));
    }
  }
  auto replace = [](int64_t given, int64_t* size) { *size = given == 0 ? *size : given; };
  replace(flags.layers, &shape.layers);
  replace(flags.dim, &shape.dim);
  replace(flags.ffn, &shape.ffn);
  replace(flags.heads, &shape.heads);
  replace(flags.kv_heads, &shape.kv_heads);
  replace(flags.head_dim, &shape.head_dim);
  replace(flags.vocab, &shape.vocab);
  replace(flags.experts, &shape.experts);
  replace(flags.experts_used, &shape.experts_used);
  replace(flags.context, &shape.context);
  shape.tied = shape.tied || flags.tied;
  if (!flags.ffn_act.empty()) shape.activation = flags.ffn_act;
  STOKE_TRY(formats::complete_shape(&shape));
  return shape;
}

// Flags that would change nothing are refused: a model measured for a skew it does not have would mislead.
Status check_activity(const CLI::App& verb, const formats::SynthShape& shape) {
  const bool fires = shape.activation == "relu" || shape.activation == "drelu";
  for (const char* flag : {"--density", "--skew", "--firing-locality", "--hot-first", "--stats-out", "--no-rates"}) {
    if (verb.count(flag) > 0 && !fires) {
      return Status(Code::kInvalid, fmt::format("{} wants a shape with --ffn-act relu or drelu", flag));
    }
  }
  for (const char* flag : {"--router-skew", "--router-locality"}) {
    if (verb.count(flag) > 0 && shape.experts == 0) {
      return Status(Code::kInvalid, fmt::format("{} wants a shape with experts", flag));
    }
  }
  return ok_status();
}

void show_progress(const std::string& output, uint64_t done, uint64_t total) {
  tell("\r{}: {} of {} ({} %)\x1b[K", output, format_size(static_cast<int64_t>(done)),
       format_size(static_cast<int64_t>(total)), done * 100 / total);
}

void print_summary(const SynthFlags& flags, const formats::SynthSummary& summary) {
  if (flags.json) {
    print_json({{"output", flags.output},
                {"parameters", summary.parameters},
                {"tensors", summary.tensors},
                {"weights_bytes", summary.bytes},
                {"type", flags.type}});
  } else if (!flags.quiet) {
    fmt::print("{}: {} tensors, {:.1f} M parameters, {} as {}; random weights: good for measuring speed only\n",
               flags.output, summary.tensors, static_cast<double>(summary.parameters) / 1e6,
               format_size(static_cast<int64_t>(summary.bytes)), flags.type);
  }
}

int run_synth(const CLI::App& verb, const SynthFlags& flags) {
  Result<formats::SynthShape> shape = shape_of(flags);
  if (!shape.ok()) return fail_usage(shape.status().message(), "synth");
  const Status activity = check_activity(verb, *shape);
  if (!activity.ok()) return fail_usage(activity.message(), "synth");
  Result<formats::SynthSkew> skew = formats::find_skew(flags.skew);
  if (!skew.ok()) return fail_usage(skew.status().message(), "synth");
  Result<formats::SynthMix> mix = formats::find_mix(flags.type);
  if (!mix.ok()) return fail_usage(mix.status().message(), "synth");
  const Status apart = check_outputs({{"--output", flags.output}, {"--stats-out", flags.stats_out}}, {});
  if (!apart.ok()) return fail(apart);
  const bool shows = !flags.quiet && is_terminal(2);
  const Interrupt interrupt;
  uint64_t shown_percent = 101;
  formats::SynthOptions options{.shape = *shape,
                                .type = flags.type,
                                .seed = flags.seed,
                                .activity = flags.activity,
                                .output = flags.output,
                                .knows_firing = !flags.no_rates,
                                .stats_output = flags.stats_out};
  options.activity.skew = *skew;
  options.progress = [&](uint64_t done, uint64_t total) {
    const uint64_t percent = done * 100 / total;
    if (shows && percent != shown_percent) show_progress(flags.output, done, total);
    shown_percent = percent;
    return !interrupt.raised();
  };
  Result<formats::SynthSummary> summary = formats::write_synth(options);
  if (shows) tell("\r\x1b[K");
  if (!summary.ok()) {
    const int status = fail(summary.status());
    return summary.status().code() == Code::kCancelled ? interrupt.exit_status() : status;
  }
  print_summary(flags, *summary);
  return 0;
}

void add_size_flags(CLI::App& verb, SynthFlags& flags) {
  auto size = [&](const char* name, int64_t& value, const char* text) {
    verb.add_option(name, value, text)->check(at_least(1))->type_name("N")->group("Sizes");
  };
  size("--layers", flags.layers, "layers; fewer than a named shape has cut it short");
  size("--dim", flags.dim, "width of the residual stream");
  size("--ffn", flags.ffn, "width of the FFN, or of one expert");
  size("--heads", flags.heads, "attention heads");
  size("--kv-heads", flags.kv_heads, "key and value heads (default: as many as heads)");
  size("--head-dim", flags.head_dim, "width of a head (default: dim / heads)");
  size("--vocab", flags.vocab, "tokens of the vocabulary (default: 32000)");
  size("--experts", flags.experts, "experts of a layer");
  size("--experts-used", flags.experts_used, "experts a token uses");
  size("-c,--ctx", flags.context, "context length the file states");
}

void add_activity_flags(CLI::App& verb, SynthFlags& flags) {
  auto number = [&](const char* name, double& value, const char* text) {
    return verb.add_option(name, value, text)->type_name("X")->group("What fires (docs/synth.md)");
  };
  number("--density", flags.activity.density, "share of neurons whose gate fires, of ReLU shapes")
      ->capture_default_str();
  verb.add_option("--skew", flags.skew, "of their firings: published, measured or uniform")
      ->type_name("NAME")
      ->capture_default_str()
      ->group("What fires (docs/synth.md)");
  number(
      "--firing-locality", flags.activity.firing_locality,
      "share of firing neurons that fired at the token before, too (default: 0.45 for measured, else what skew gives)");
  verb.add_flag("--hot-first", flags.activity.hot_first, "neurons lie in the order of their probability, not by chance")
      ->group("What fires (docs/synth.md)");
  verb.add_flag("--no-rates", flags.no_rates, "a store does not say how often its neurons fire")
      ->group("What fires (docs/synth.md)");
  number("--router-skew", flags.activity.router_skew, "Zipf exponent of the experts' popularity (default: 0)");
  number("--router-locality", flags.activity.router_locality,
         "share of a token's experts that the token before used, too (default: what skew gives)");
  verb.add_option("--stats-out", flags.stats_out, "write how often each neuron fires, for stoke convert --stats")
      ->type_name("FILE")
      ->group("What fires (docs/synth.md)");
}

}  // namespace

void add_synth(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("synth", "write a random model of a real shape, for measuring speed");
  auto& flags = context.make<SynthFlags>();
  verb->add_option("SHAPE", flags.shape,
                   fmt::format("one of {}; absent: give sizes", fmt::join(formats::shape_names(), ", ")));
  verb->add_option("-o,--output", flags.output, "file to write; NAME.stoke: a neuron store")
      ->required()
      ->type_name("OUT");
  verb->add_option("--type", flags.type, fmt::format("one of {}", fmt::join(formats::mix_names(), ", ")))
      ->type_name("TYPE")
      ->capture_default_str();
  verb->add_option("-s,--seed", flags.seed, "the same seed gives the same bytes")->type_name("N");
  verb->add_option("--arch", flags.arch, "llama, qwen3, qwen3moe or gemma3, where no shape is named")
      ->type_name("NAME");
  verb->add_option("--ffn-act", flags.ffn_act, "activation the file states; relu and drelu set what fires")
      ->type_name("NAME");
  verb->add_flag("--tied", flags.tied, "the embedding is the output matrix, too");
  verb->add_flag("--json", flags.json, "print the result as JSON");
  verb->add_flag("-q,--quiet", flags.quiet, "print nothing but failures");
  add_size_flags(*verb, flags);
  add_activity_flags(*verb, flags);
  verb->callback([verb, &flags, &context] { context.run([verb, &flags] { return run_synth(*verb, flags); }); });
}

}  // namespace stoke::cli
