#include "cli/flags.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "cli/output.h"
#include "sys/files.h"

namespace stoke::cli {
namespace {

// A line "loading  42 %" that overwrites itself and goes away when done.
ProgressCallback progress_line() {
  return [shown = -1](double fraction) mutable {
    const int percent = static_cast<int>(fraction * 100);
    if (percent == shown) return;
    if (percent < 100) {
      fmt::print(stderr, "\rloading {:3d} %", percent);
    } else if (shown >= 0) {
      fmt::print(stderr, "\r\033[K");
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

Result<std::pair<int32_t, float>> parse_bias(const std::string& text) {
  char* end = nullptr;
  const long id = std::strtol(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '=') {
    return Status(Code::kInvalid, "--logit-bias " + text + ": write ID=VALUE, such as 42=-1.5 or 42=-inf");
  }
  const char* value = end + 1;
  const float bias = std::strtof(value, &end);
  if (end == value || *end != 0) return Status(Code::kInvalid, "--logit-bias " + text + ": the value is no number");
  return std::pair(static_cast<int32_t>(id), bias);
}

uint64_t system_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

void describe(const Model& model) {
  const MemoryReport& m = model.memory();
  fmt::print(stderr, "{}: {} {}, {:.1f} M parameters, context {}, {} threads, {}\n", model.info().name,
             model.info().architecture, model.info().quantization, static_cast<double>(model.info().parameters) * 1e-6,
             model.context(), model.threads(), model.stats().isa);
  fmt::print(stderr, "memory: {} = {}; limit {} ({})\n", format_size(m.total), memory_sum(m), format_size(m.budget),
             m.budget_source);
}

}  // namespace

void add_model_flags(CLI::App& verb, ModelFlags& flags) {
  verb.add_option("MODEL", flags.model, "a .gguf file, a Hugging Face folder, or a name that `stoke pull` knows")
      ->required();
  verb.add_option("-c,--ctx", flags.context,
                  "tokens of context (default: 4096 or the model's, whichever is less; run and chat "
                  "take less where only that fits)")
      ->check(CLI::PositiveNumber);
  verb.add_option("-t,--threads", flags.threads, "compute threads (default: the physical cores given to us)")
      ->check(CLI::Range(1, 1024));
  verb.add_option("-b,--batch", flags.batch, "prompt tokens computed together (default: 512)")
      ->check(CLI::Range(1, 65536));
  verb.add_option("--memory", flags.memory, "bound on all that the process holds, such as 2G")->transform(as_size());
  verb.add_option("--isa", flags.isa, "instruction set: portable, avx2, avx512, neon, ... (default: the best here)");
  verb.add_option("--kv-type", flags.kv_type, "type of the KV cache: f16 (default) or q8_0")
      ->check(CLI::IsMember({"f16", "q8_0"}));
  verb.add_option("--ffn-act", flags.ffn_act,
                  "the FFN's activation, where the file does not say: silu, relu, drelu, fatrelu:0.01, ...");
  verb.add_option("--quant", flags.quant, "quantise F32/F16/BF16 weights on load: q8_0, q4_0 or q4_k");
}

void add_measuring_flags(CLI::App& verb, ModelFlags& flags) {
  const std::string group = "For measurements";
  verb.add_option(
          "--ablation", flags.ablation,
          "neuron stores: switch parts of the engine off: dense, bundles, cache, pipeline, hot (all on), flash, lru")
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

void add_prompt_flags(CLI::App& verb, PromptFlags& flags) {
  auto* prompt = verb.add_option("-p,--prompt", flags.prompt, "the text");
  auto* file = verb.add_option("-f,--file", flags.file, "a file with the text (default: standard input)");
  prompt->excludes(file)->each([&flags](const std::string&) { flags.has_prompt = true; });
}

Result<std::string> read_prompt(const PromptFlags& flags, bool trim) {
  if (flags.has_prompt) return flags.prompt;
  constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
  auto text = flags.file.empty() ? read_stdin() : sys::read_file(flags.file, kMaxBytes);
  if (text.ok() && trim && text->ends_with('\n')) text->pop_back();
  return text;
}

void add_sampling_flags(CLI::App& verb, SamplingFlags& flags) {
  SamplingOptions& o = flags.options;
  verb.add_option("-n,--predict", flags.predict, "tokens to generate at most (default: until the context is full)")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 40));
  verb.add_option("-s,--seed", o.seed, "seed of the draws (default: a new one each time)")
      ->each([&flags](const std::string&) { flags.seeded = true; });
  verb.add_option("--temp", o.temperature, "temperature; 0 is greedy and exact")->capture_default_str();
  verb.add_option("--top-k", o.top_k, "keep the K most probable; 0: all")->capture_default_str();
  verb.add_option("--top-p", o.top_p, "keep the fewest that reach this probability; 1: all")->capture_default_str();
  verb.add_option("--min-p", o.min_p, "drop what is below this share of the best; 0: none")->capture_default_str();
  verb.add_option("--typical", o.typical_p, "locally typical sampling; 1: off")->capture_default_str();
  verb.add_option("--repeat-penalty", o.repeat_penalty, "for tokens seen lately; 1: off")->capture_default_str();
  verb.add_option("--repeat-last-n", o.penalty_last_n, "tokens that count as lately; -1: all")->capture_default_str();
  verb.add_option("--frequency-penalty", o.frequency_penalty, "subtracted for each occurrence")->capture_default_str();
  verb.add_option("--presence-penalty", o.presence_penalty, "subtracted where it occurred")->capture_default_str();
  verb.add_option("--dry-multiplier", o.dry.multiplier, "penalty on repeated passages; 0: off")->capture_default_str();
  verb.add_option("--dry-base", o.dry.base, "its growth a token")->capture_default_str();
  verb.add_option("--dry-allowed-length", o.dry.allowed_length, "repetition that is still free")->capture_default_str();
  verb.add_option("--dry-last-n", o.dry.last_n, "tokens searched; -1: all")->capture_default_str();
  verb.add_option("--dry-breaker", flags.breakers, "text that ends a repetition (default: newline : \" *)")
      ->allow_extra_args(false);
  verb.add_option("--logit-bias", flags.bias, "ID=VALUE added to a token's logit; -inf forbids it")
      ->allow_extra_args(false);
  verb.add_option("--stop", flags.stop, "text that ends the generation")->allow_extra_args(false);
  verb.add_flag("--ignore-eos", flags.ignore_eos, "go on after the end of text");
}

Result<GenerateOptions> generate_options(const SamplingFlags& flags, const Tokenizer& tokenizer) {
  GenerateOptions options;
  options.max_tokens = flags.predict;
  options.sampling = flags.options;
  options.ignore_eos = flags.ignore_eos;
  options.stop = flags.stop;
  if (!flags.seeded) options.sampling.seed = system_seed();
  for (const std::string& text : flags.bias) {
    auto bias = parse_bias(text);
    if (!bias.ok()) return bias.status();
    options.sampling.logit_bias.push_back(*bias);
  }
  if (options.sampling.dry.multiplier <= 0) return options;
  const std::vector<std::string> usual = {"\n", ":", "\"", "*"};
  for (const std::string& text : flags.breakers.empty() ? usual : flags.breakers) {
    auto tokens = tokenizer.encode(text, {.bos = false});
    if (!tokens.ok()) return tokens.status();
    if (!tokens->empty()) options.sampling.dry.breakers.push_back(tokens->back());
  }
  return options;
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
    if (!line->empty()) fmt::print(stderr, "stoke: {}\n", *line);
  }
  return model;
}

int close_trace(Model& model, int status) {
  const Status written = model.write_trace();
  return written.ok() ? status : fail(written);
}

}  // namespace stoke::cli
