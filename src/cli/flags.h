// The flags that have one meaning everywhere, as plain structs and the functions that declare them.
// Thread role: main thread. Ownership: the structs live in the Context.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/interrupt.h"
#include "cli/live_line.h"
#include "cli/verbs.h"
#include "stoke/stoke.h"

namespace stoke::cli {

struct ModelFlags {
  std::string model;
  int64_t memory = 0;
  int64_t context = 0;
  int threads = 0;
  int64_t batch = 0;
  std::string isa;
  std::string kv_type;
  std::string ffn_act;
  std::string quant;
  std::string ablation;
  std::string firings;
};
// MODEL, also as -m.
CLI::Option* add_model(CLI::App& verb, std::string& model);
// MODEL and everything that says how it is opened. `context_text`: the help of --ctx, with the verb's own default.
void add_model_flags(CLI::App& verb, ModelFlags& flags,
                     const std::string& context_text =
                         "tokens of context (default: 4096 or the model's, whichever is "
                         "less; less where only that fits)");
// --ablation and --firings.
void add_measuring_flags(CLI::App& verb, ModelFlags& flags);

struct OutputFlags {
  bool json = false;
  bool stats = false;
  bool quiet = false;
  bool verbose = false;
  std::string trace;
};
void add_output_flags(CLI::App& verb, OutputFlags& flags);
void add_trace_flag(CLI::App& verb, OutputFlags& flags);

struct PromptFlags {
  std::string prompt;
  std::string file;
  bool has_prompt = false;
  // Said on stderr where the text is awaited from a terminal, which looks like a program that hangs; may be empty.
  std::string terminal_note = "reading the text from standard input; Ctrl-D ends it";
};
// `positional`: the name under which the text may also follow without -p; empty: it may not.
void add_prompt_flags(CLI::App& verb, PromptFlags& flags, const std::string& positional = "");
// -p, the file's text, or all of standard input. One line break at the end of a file or of standard input is dropped
// (editors and echo put it there) where `trim`.
Result<std::string> read_prompt(const PromptFlags& flags, bool trim = true);

struct SamplingFlags {
  SamplingOptions options;
  std::vector<std::string> bias;      // "ID=VALUE"
  std::vector<std::string> breakers;  // texts whose tokens end a repetition for DRY
  int64_t predict = -1;
  bool ignore_eos = false;
  std::vector<std::string> stop;
  bool seeded = false;
};
void add_sampling_flags(CLI::App& verb, SamplingFlags& flags);
// Complete options; a seed that was not given, or given as -1, is drawn from the system.
Result<GenerateOptions> generate_options(const SamplingFlags& flags, const Tokenizer& tokenizer);

struct OpenHow {
  int sequences = 1;         // that will be used at once
  LiveLine* live = nullptr;  // shows what a streaming model does, and outlives it
  // As in ModelOptions.
  std::function<Result<int64_t>(const Tokenizer&)> context_needed = {};
};
// Opens the model with a progress line on a terminal, and says on stderr what it took when verbose.
Result<std::unique_ptr<Model>> open_model(const ModelFlags& flags, const OutputFlags& output,
                                          const Interrupt& interrupt, const OpenHow& how = {});
// Writes the trace, where there is one. Returns the exit status: `status`, or 1 after saying why it was not written.
int close_trace(Model& model, int status);
ModelOptions model_options(const ModelFlags& flags);

}  // namespace stoke::cli
