#include "cli/flags.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/output.h"
#include "cli/outputs.h"
#include "cli/standard_streams.h"
#include "engine/ablation.h"
#include "sys/files.h"

namespace stoke::cli {
namespace {

// A line "loading  42 %" that overwrites itself and goes away when done.
ProgressCallback progress_line() {
  return [shown = -1](double fraction) mutable {
    const int percent = static_cast<int>(fraction * 100);
    if (percent == shown) return;
    if (percent < 100) {
      tell("\rloading {:3d} %", percent);
    } else if (shown >= 0) {
      tell("\r\033[K");
    }
    std::fflush(stderr);
    shown = percent;
  };
}

Result<std::string> read_stdin() {
  std::string text;
  char buffer[65536];
  for (;;) {
    const size_t n = std::fread(buffer, 1, sizeof buffer, stdin);
    text.append(buffer, n);
    if (n < sizeof buffer) break;
  }
  if (std::ferror(stdin) != 0) {
    return Status(Code::kIo, std::string("standard input: ") + std::strerror(errno));
  }
  return text;
}

CLI::Validator as_ablation() {
  return {[](std::string& text) { return engine::find_ablation(text).status().message(); }, ""};
}

void describe(const Model& model) {
  const MemoryReport& m = model.memory();
  tell("{}: {} {}, {:.1f} M parameters, context {}, {} threads, {}\n", model.info().name, model.info().architecture,
       model.info().quantization, static_cast<double>(model.info().parameters) * 1e-6, model.context(), model.threads(),
       model.stats().isa);
  tell("memory: {} = {}; limit {} ({})\n", format_size(m.total), memory_sum(m), format_size(m.budget), m.budget_source);
}

}  // namespace

CLI::Option* add_model(CLI::App& verb, std::string& model) {
  return verb.add_option("-m,--model,MODEL", model,
                         "a .gguf file, a Hugging Face folder, or a name that `stoke pull` knows");
}

void add_model_flags(CLI::App& verb, ModelFlags& flags, const std::string& context_text) {
  add_model(verb, flags.model)->required();
  verb.add_option("-c,--ctx,--ctx-size", flags.context, context_text)->check(at_least(1));
  verb.add_option("-t,--threads", flags.threads, "compute threads (default: the physical cores given to us)")
      ->check(CLI::Range(1, 1024));
  verb.add_option("-b,--batch,--batch-size", flags.batch, "prompt tokens computed together (default: 512)")
      ->check(CLI::Range(1, 65536));
  verb.add_option("--memory", flags.memory, "bound on all that the process holds, such as 2G")->transform(as_size());
  verb.add_option("--isa", flags.isa, "instruction set of the kernels (default: the best here)")
      ->check(CLI::IsMember({"portable", "avx2", "avxvnni", "avx512", "amx", "neon", "dotprod", "i8mm"}));
  verb.add_option("--kv-type", flags.kv_type, "type of the KV cache: f16 (default) or q8_0")
      ->check(CLI::IsMember({"f16", "q8_0"}));
  verb.add_option("--ffn-act", flags.ffn_act,
                  "the FFN's activation, where the file does not say: silu, relu, drelu, fatrelu:0.01, ...");
  verb.add_option("--quant", flags.quant, "quantise F32/F16/BF16 weights on load")
      ->check(CLI::IsMember({"q8_0", "q4_0", "q4_k"}));
}

void add_measuring_flags(CLI::App& verb, ModelFlags& flags) {
  const std::string group = "For measurements";
  verb.add_option(
          "--ablation", flags.ablation,
          "neuron stores: switch parts of the engine off: dense, bundles, cache, pipeline, hot (all on), flash, lru")
      ->check(as_ablation())
      ->type_name("NAME")
      ->group(group);
  verb.add_option("--firings", flags.firings,
                  "write which neurons of a store fire, or which experts are chosen, token by token, to this file")
      ->type_name("FILE")
      ->group(group);
}

void add_output_flags(CLI::App& verb, OutputFlags& flags) {
  verb.add_flag("--json", flags.json, "one JSON object on standard output");
  verb.add_flag("--stats", flags.stats, "one line of statistics on standard error");
  verb.add_flag("-q,--quiet", flags.quiet, "nothing but the result and failures");
  verb.add_flag("-v,--verbose", flags.verbose, "say what was loaded and where the memory goes");
}

void add_trace_flag(CLI::App& verb, OutputFlags& flags) {
  verb.add_option("--trace", flags.trace, "write what was done when as a Chrome trace, which ui.perfetto.dev opens")
      ->type_name("FILE");
}

void add_prompt_flags(CLI::App& verb, PromptFlags& flags, const std::string& positional) {
  const std::string names = "-p,--prompt" + (positional.empty() ? "" : "," + positional);
  auto* prompt = verb.add_option(names, flags.prompt, "the text");
  auto* file = verb.add_option("-f,--file", flags.file, "a file with the text (default: standard input)");
  prompt->excludes(file)->each([&flags](const std::string&) { flags.has_prompt = true; });
}

Result<std::string> read_prompt(const PromptFlags& flags, bool trim) {
  if (flags.has_prompt) return flags.prompt;
  if (flags.file.empty() && !flags.terminal_note.empty() && is_terminal(0)) {
    tell("{}stoke: {}\n", is_terminal(2) ? "\r\033[K" : "", flags.terminal_note);
  }
  constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
  auto text = flags.file.empty() ? read_stdin() : sys::read_file(flags.file, kMaxBytes);
  if (text.ok() && trim && text->ends_with('\n')) text->pop_back();
  return text;
}

ModelOptions model_options(const ModelFlags& flags) {
  ModelOptions options;
  options.memory_bytes = flags.memory;
  options.context = flags.context;
  options.threads = flags.threads;
  options.batch = flags.batch;
  options.isa = flags.isa;
  options.kv_type = flags.kv_type;
  options.ffn_act = flags.ffn_act;
  options.quant = flags.quant;
  options.ablation = flags.ablation;
  options.firings = flags.firings;
  return options;
}

Result<std::unique_ptr<Model>> open_model(const ModelFlags& flags, const OutputFlags& output,
                                          const Interrupt& interrupt, const OpenHow& how) {
  auto path = resolve_model(flags.model);
  if (!path.ok()) return path.status();
  const Status apart = check_outputs({{"--trace", output.trace}, {"--firings", flags.firings}}, {{"the model", *path}});
  if (!apart.ok()) return apart;
  ModelOptions options = model_options(flags);
  options.sequences = how.sequences;
  options.context_needed = how.context_needed;
  options.cancel = &interrupt.flag();
  if (!output.quiet && is_terminal(2)) options.progress = progress_line();
  if (how.live != nullptr) options.activity = how.live->callback();
  options.trace_path = output.trace;
  auto model = Model::open(*path, options);
  if (model.ok() && output.verbose) describe(**model);
  if (!model.ok() || output.quiet) return model;
  const MemoryReport& memory = (*model)->memory();
  for (const std::string* line : {&memory.streaming, &memory.context, &memory.advice}) {
    if (!line->empty()) tell("stoke: {}\n", *line);
  }
  return model;
}

int close_trace(Model& model, int status) {
  const Status written = model.write_trace();
  return written.ok() ? status : fail(written);
}

}  // namespace stoke::cli
