// stoke convert: a ReLU-family model into a neuron store (convert/convert.h).
#include "convert/convert.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <optional>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/outputs.h"
#include "cli/perplexity.h"
#include "cli/standard_streams.h"
#include "cli/verbs.h"

namespace stoke::cli {
namespace {

struct ConvertFlags {
  std::string model;
  std::string output;
  std::string layout = "split";
  std::string down;
  std::string quant;
  std::string ffn_act;
  std::string stats;
  std::string ppl;  // a file of text
  int threads = 2;
  bool json = false;
  bool quiet = false;
};

// A line on the terminal, at most ten times a second: what, how far, how fast, how long it will take.
class ProgressLine {
 public:
  explicit ProgressLine(bool shows) : shows_(shows) {}
  ~ProgressLine() {
    if (shows_) tell("\r\x1b[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const convert::ConvertProgress& at) {
    if (!shows_) return;
    const auto time = Clock::now();
    if (at.verifying != verifying_ || begin_ == Clock::time_point()) {
      verifying_ = at.verifying;
      begin_ = time;
      first_ = at.done;
    }
    if (time - shown_ < std::chrono::milliseconds(100)) return;
    shown_ = time;
    const double seconds = std::chrono::duration<double>(time - begin_).count();
    const double rate = seconds > 0 ? static_cast<double>(at.done - first_) / seconds : 0;
    const std::string left =
        seconds < 1 || rate <= 0 ? "" : fmt::format(", {:.0f} s left", static_cast<double>(at.total - at.done) / rate);
    tell("\r{} {} of {} ({} %), {}/s{}\x1b[K", at.verifying ? "verifying" : "writing",
         size(static_cast<double>(at.done)), size(static_cast<double>(at.total)), at.done * 100 / at.total, size(rate),
         left);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static std::string size(double bytes) { return format_size(static_cast<int64_t>(bytes)); }

  bool shows_;
  bool verifying_ = false;
  uint64_t first_ = 0;
  Clock::time_point begin_;
  Clock::time_point shown_;
};

// Perplexity of source and store over a text.
struct Loss {
  double source = 0;
  double store = 0;
};

Result<double> perplexity_of(const ConvertFlags& flags, const std::string& path, const std::string& text,
                             const Interrupt& interrupt) {
  ModelOptions how;
  how.context = kPplWindow;
  how.ffn_act = flags.ffn_act;
  auto model = Model::open(path, how);
  if (!model.ok()) return model.status();
  const bool progress = is_terminal(2) && !flags.quiet;
  const auto score = score_text(**model, text, {.progress = progress}, interrupt);
  if (!score.ok()) return score.status();
  return score->perplexity();
}

Result<Loss> measure_loss(const ConvertFlags& flags, const std::string& source, const std::string& text,
                          const Interrupt& interrupt) {
  const auto before = perplexity_of(flags, source, text, interrupt);
  if (!before.ok()) return before.status();
  const auto after = perplexity_of(flags, flags.output, text, interrupt);
  if (!after.ok()) return after.status();
  return Loss{*before, *after};
}

void print_summary(const ConvertFlags& flags, const convert::ConvertSummary& summary, const std::optional<Loss>& loss) {
  if (flags.json) {
    Json json = {{"output", flags.output},   {"bytes", summary.bytes},     {"resumed_bytes", summary.resumed},
                 {"layers", summary.layers}, {"neurons", summary.neurons}, {"record_bytes", summary.record_bytes},
                 {"layout", flags.layout},   {"up", summary.up},           {"down", summary.down}};
    if (loss) json["perplexity"] = {{"source", loss->source}, {"store", loss->store}};
    print_json(json);
  } else if (!flags.quiet) {
    fmt::print("{}: {}, {} layers, {} neurons in records of {} bytes ({} layout, Up {}, Down {}), verified\n",
               flags.output, format_size(static_cast<int64_t>(summary.bytes)), summary.layers, summary.neurons,
               summary.record_bytes, flags.layout, summary.up, summary.down);
    if (loss) {
      fmt::print("perplexity over {}: {:.4f} of the source, {:.4f} of the store ({:+.2f} %)\n", flags.ppl, loss->source,
                 loss->store, 100 * (loss->store / loss->source - 1));
    }
  }
}

Result<convert::ConvertSummary> convert_showing(const ConvertFlags& flags, const std::string& source,
                                                const Interrupt& interrupt) {
  convert::ConvertOptions options{.model = source,
                                  .output = flags.output,
                                  .layout = flags.layout == "bundle" ? RecordLayout::kBundle : RecordLayout::kSplit,
                                  .down = flags.down,
                                  .quant = flags.quant,
                                  .ffn_act = flags.ffn_act,
                                  .stats = flags.stats,
                                  .threads = flags.threads};
  ProgressLine line(!flags.quiet && is_terminal(2));
  options.progress = [&](const convert::ConvertProgress& at) {
    line.show(at);
    return !interrupt.raised();
  };
  return convert::convert(options);
}

int run_convert(const ConvertFlags& flags) {
  auto path = resolve_model(flags.model);
  if (!path.ok()) return fail(path.status());
  if (!flags.output.ends_with(".stoke")) return fail_usage("-o: a name that ends with .stoke is wanted", "convert");
  const Status apart = check_outputs({{"--output", flags.output}},
                                     {{"the model", *path}, {"--stats", flags.stats}, {"--ppl", flags.ppl}});
  if (!apart.ok()) return fail(apart);
  std::string text;
  if (!flags.ppl.empty()) {
    auto read = read_prompt({.file = flags.ppl});
    if (!read.ok()) return fail(read.status());
    text = std::move(*read);
  }
  const Interrupt interrupt;
  const auto summary = convert_showing(flags, *path, interrupt);
  if (!summary.ok()) {
    const int status = fail(summary.status());
    return summary.status().code() == Code::kCancelled ? interrupt.exit_status() : status;
  }
  std::optional<Loss> loss;
  if (!flags.ppl.empty()) {
    const auto measured = measure_loss(flags, *path, text, interrupt);
    if (interrupt.raised()) return interrupt.exit_status();
    if (!measured.ok()) return fail(measured.status().with("the store is written, but its perplexity is not known"));
    loss = *measured;
  }
  print_summary(flags, *summary, loss);
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("convert", "make a neuron store (.stoke) of a ReLU-family model");
  auto& flags = context.make<ConvertFlags>();
  add_model(*verb, flags.model)->required();
  verb->add_option("-o,--output", flags.output, "store to write, NAME.stoke")->required()->type_name("OUT");
  verb->add_option("--layout", flags.layout, "split: gates apart; bundle: gate, up and down in one record")
      ->check(CLI::IsMember({"split", "bundle"}))
      ->capture_default_str();
  verb->add_option(
          "--down", flags.down,
          "type of Down's columns; codes: lossless, with scales apart (default: q4_0 or q8_0, by the source's)")
      ->type_name("TYPE");
  verb->add_option("--quant", flags.quant, "type that float matrices become")->type_name("TYPE");
  verb->add_option("--ffn-act", flags.ffn_act, "activation, where the file does not say: relu, drelu or fatrelu:0.01")
      ->type_name("NAME");
  verb->add_option("--stats", flags.stats,
                   "what fires (stoke profile MODEL -f TEXT): neurons that do so most come first")
      ->type_name("FILE");
  verb->add_option("--ppl", flags.ppl, "measure perplexity of source and store over this text")->type_name("FILE");
  verb->add_option("-t,--threads", flags.threads, "threads that encode")->check(at_least(1))->capture_default_str();
  verb->add_flag("--json", flags.json, "print the result as JSON");
  verb->add_flag("-q,--quiet", flags.quiet, "print nothing but failures");
  verb->callback([&flags, &context] { context.run([&flags] { return run_convert(flags); }); });
}

}  // namespace stoke::cli
