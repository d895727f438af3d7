// stoke bench: prefill and decode rates, medians over repeats.
//
// A repeat: a prompt of --prompt tokens into an empty context, timed; then --generate tokens one by one, timed, from a
// context of --depth tokens (0: empty, as llama-bench's tg). Tokens are fixed pseudo-random ids, so that every run
// computes the same thing; nothing is sampled. With --parallel N, N sequences decode together and the rate is their
// sum.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "cli/flags.h"
#include "cli/output.h"
#include "cli/standard_streams.h"

namespace stoke::cli {
namespace {

struct BenchFlags {
  ModelFlags model;
  OutputFlags output;
  int64_t prompt = 512;
  int64_t generate = 128;
  int repeat = 3;
  int parallel = 1;
  int64_t depth = 0;
};

struct Sample {
  double prefill = 0;
  double decode = 0;
};

std::vector<int32_t> random_tokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  uint64_t state = 12345;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    tokens.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary)));
  }
  return tokens;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Bench {
 public:
  Bench(const BenchFlags& flags, Model& model, const Interrupt& interrupt)
      : flags_(flags), model_(model), interrupt_(interrupt) {}

  Status prepare() {
    tokens_ = random_tokens(std::max({flags_.prompt, flags_.depth, flags_.generate}) + flags_.parallel,
                            model_.info().vocabulary);
    for (int i = 0; i < flags_.parallel; ++i) {
      auto session = model_.new_session();
      if (!session.ok()) return session.status();
      sessions_.push_back(std::move(*session));
      pointers_.push_back(sessions_.back().get());
    }
    // Touches every weight and buffer once, untimed.
    constexpr int64_t kWarm = 32;
    auto warm = prefill(std::min(kWarm, flags_.prompt));
    if (!warm.ok()) return warm.status();
    auto step = decode(std::min<int64_t>(2, flags_.generate));
    if (!step.ok()) return step.status();
    // The embedding is loaded last, and a prompt needs only rows of it: the first measurement had half the processors.
    Status loaded = model_.finish_loading();
    model_.reset_stats();
    return loaded;
  }

  Result<Sample> measure() {
    Sample sample;
    auto prefilled = prefill(flags_.prompt);
    if (!prefilled.ok()) return prefilled.status();
    sample.prefill = *prefilled;
    auto decoded = decode(flags_.generate);
    if (!decoded.ok()) return decoded.status();
    sample.decode = *decoded;
    return sample;
  }

 private:
  // Tokens a second for a prompt of n tokens; 0 for none.
  Result<double> prefill(int64_t n) {
    if (n == 0) return 0.0;
    Session& session = *sessions_[0];
    session.truncate(0);
    const auto start = std::chrono::steady_clock::now();
    const Status status = session.prefill(std::span(tokens_).first(static_cast<size_t>(n)), &interrupt_.flag());
    if (!status.ok()) return status;
    return static_cast<double>(n) / seconds_since(start);
  }

  Result<double> decode(int64_t n) {
    if (n == 0) return 0.0;
    for (auto& session : sessions_) {
      session->truncate(0);
      if (flags_.depth == 0) continue;
      const Status status =
          session->prefill(std::span(tokens_).first(static_cast<size_t>(flags_.depth)), &interrupt_.flag());
      if (!status.ok()) return status;
    }
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < n; ++i) {
      if (interrupt_.raised()) return Status(Code::kCancelled, "interrupted");
      const auto step = std::span(tokens_).subspan(static_cast<size_t>(i), sessions_.size());
      const Status status = model_.decode(pointers_, step);
      if (!status.ok()) return status;
    }
    return static_cast<double>(n * flags_.parallel) / seconds_since(start);
  }

  const BenchFlags& flags_;
  Model& model_;
  const Interrupt& interrupt_;
  std::vector<int32_t> tokens_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> pointers_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void report(const BenchFlags& flags, const Model& model, const std::vector<Sample>& samples) {
  std::vector<double> prefill;
  std::vector<double> decode;
  Json list = Json::array();
  for (const Sample& sample : samples) {
    prefill.push_back(sample.prefill);
    decode.push_back(sample.decode);
    list.push_back({{"prefill_tokens_per_s", sample.prefill}, {"decode_tokens_per_s", sample.decode}});
  }
  if (flags.output.json) {
    print_json(Json{{"prefill_tokens_per_s", median(prefill)},
                    {"decode_tokens_per_s", median(decode)},
                    {"samples", list},
                    {"prompt", flags.prompt},
                    {"generate", flags.generate},
                    {"parallel", flags.parallel},
                    {"depth", flags.depth},
                    {"stats", stats_json(model.stats())}});
    return;
  }
  fmt::print("prefill {:.1f} tok/s ({}), decode {:.2f} tok/s ({}, depth {}, {} in parallel); medians of {}\n",
             median(prefill), counted(flags.prompt, "token"), median(decode), counted(flags.generate, "token"),
             flags.depth, flags.parallel, samples.size());
}

int run(BenchFlags flags) {
  const int64_t needed = std::max(flags.prompt, flags.depth + flags.generate);
  if (needed == 0) return fail_usage("nothing to measure: --prompt and --generate are both 0", "bench");
  if (flags.model.context == 0) flags.model.context = needed;
  if (flags.model.context < needed) {
    return fail_usage(fmt::format("--ctx {} is less than the {} tokens to measure", flags.model.context, needed),
                      "bench");
  }
  const Interrupt interrupt;
  auto model = open_model(flags.model, flags.output, interrupt, {.sequences = flags.parallel});
  if (!model.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(model.status());
  Bench bench(flags, **model, interrupt);
  const Status prepared = bench.prepare();
  if (!prepared.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(prepared);
  std::vector<Sample> samples;
  for (int i = 0; i < flags.repeat; ++i) {
    auto sample = bench.measure();
    if (!sample.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(sample.status());
    samples.push_back(*sample);
    if (is_terminal(2) && !flags.output.quiet) {
      tell("{}/{}: prefill {:.1f}, decode {:.2f} tok/s\n", i + 1, flags.repeat, sample->prefill, sample->decode);
    }
  }
  report(flags, **model, samples);
  if (flags.output.stats) tell("{}\n", stats_line((*model)->stats()));
  return close_trace(**model, 0);
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  auto& flags = context.make<BenchFlags>();
  auto* verb = app.add_subcommand("bench", "prefill and decode rates: medians over repeats");
  add_model_flags(*verb, flags.model,
                  "tokens of context (default: what is measured: --prompt, or --depth and --generate, if more)");
  verb->add_option("-p,--prompt", flags.prompt, "prompt tokens; 0: no prefill")
      ->check(at_least(0, kCountMost))
      ->capture_default_str();
  verb->add_option("-n,--generate", flags.generate, "tokens decoded; 0: no decode")
      ->check(at_least(0, kCountMost))
      ->capture_default_str();
  verb->add_option("--repeat", flags.repeat, "measurements, of which the median counts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  verb->add_option("--parallel", flags.parallel, "sequences that decode together")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  verb->add_option("--depth", flags.depth, "tokens already in the context while decoding")
      ->check(at_least(0, kCountMost))
      ->capture_default_str();
  add_measuring_flags(*verb, flags.model);
  add_output_flags(*verb, flags.output);
  add_trace_flag(*verb, flags.output);
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
