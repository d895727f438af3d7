// How tokens are chosen: the flags, the ranges that can be judged without a model, and the seed.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

#include "cli/flags.h"

namespace stoke::cli {
namespace {

Result<std::pair<int32_t, float>> parse_bias(const std::string& text) {
  char* end = nullptr;
  const long id = std::strtol(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '=') {
    return Status(Code::kInvalid, text + ": write ID=VALUE, such as 42=-1.5 or 42=-inf");
  }
  const char* value = end + 1;
  const float bias = std::strtof(value, &end);
  if (end == value || *end != 0 || !(bias < std::numeric_limits<float>::infinity())) {
    return Status(Code::kInvalid, text + ": the value must be a number or -inf");
  }
  return std::pair(static_cast<int32_t>(id), bias);
}

CLI::Validator as_bias() {
  return {[](std::string& text) { return parse_bias(text).status().message(); }, ""};
}

// A finite number for which `right` holds; `range` says which those are.
CLI::Validator number(bool (*right)(double), const std::string& range) {
  return {[right, range](std::string& text) -> std::string {
            char* end = nullptr;
            const float value = std::strtof(text.c_str(), &end);
            if (end != text.c_str() && *end == 0 && std::isfinite(value) && right(value)) return "";
            return fmt::format("{} is not a number {}", text, range);
          },
          range};
}
CLI::Validator finite() {
  return number([](double) { return true; }, "");
}
CLI::Validator not_negative() {
  return number([](double x) { return x >= 0; }, ">= 0");
}
CLI::Validator positive() {
  return number([](double x) { return x > 0; }, "> 0");
}
CLI::Validator share() {
  return number([](double x) { return x >= 0 && x <= 1; }, "in [0, 1]");
}
// Of what keeps the most probable: nothing would be left at 0.
CLI::Validator share_above_0() {
  return number([](double x) { return x > 0 && x <= 1; }, "in (0, 1]");
}

constexpr const char* kNewSeed = "-1";

CLI::Validator as_seed() {
  return {[](std::string& text) -> std::string {
            uint64_t value = 0;
            const char* const past = text.data() + text.size();
            const auto [end, error] = std::from_chars(text.data(), past, value);
            if (text == kNewSeed || (error == std::errc() && end == past)) return "";
            return text + " is no seed: a whole number from 0 to 2^64 - 1, or -1 for a new one";
          },
          ""};
}

// 32 bits: short to type again, and exact in every reader of JSON.
uint64_t system_seed() {
  std::random_device device;
  return device() & 0xFFFFFFFFU;
}

void add_penalty_flags(CLI::App& verb, SamplingFlags& flags) {
  SamplingOptions& o = flags.options;
  const auto add = [&](const char* name, auto& value, const CLI::Validator& check, const char* text) {
    verb.add_option(name, value, text)->check(check)->capture_default_str();
  };
  add("--repeat-penalty", o.repeat_penalty, positive(), "for tokens seen lately; 1: off");
  add("--repeat-last-n", o.penalty_last_n, at_least(-1), "tokens that count as lately; -1: all");
  add("--frequency-penalty", o.frequency_penalty, finite(), "subtracted for each occurrence");
  add("--presence-penalty", o.presence_penalty, finite(), "subtracted where it occurred");
  add("--dry-multiplier", o.dry.multiplier, not_negative(), "penalty on repeated passages; 0: off");
  add("--dry-base", o.dry.base, number([](double x) { return x >= 1; }, ">= 1"), "its growth a token");
  add("--dry-allowed-length", o.dry.allowed_length, at_least(1), "repetition that is still free");
  add("--dry-last-n", o.dry.last_n, at_least(-1), "tokens searched; -1: all");
}

}  // namespace

void add_sampling_flags(CLI::App& verb, SamplingFlags& flags) {
  SamplingOptions& o = flags.options;
  verb.add_option("-n,--predict,--n-predict", flags.predict,
                  "tokens to generate at most; -1: until the context is full (the default)")
      ->check(at_least(-1, kCountMost));
  const auto set_seed = [&flags](const std::string& text) {
    flags.seeded = text != kNewSeed;
    if (flags.seeded) flags.options.seed = std::stoull(text);
  };
  verb.add_option_function<std::string>("-s,--seed", set_seed, "seed of the draws; -1: a new one (the default)")
      ->check(as_seed())
      ->type_name("N");
  const auto add = [&](const char* name, auto& value, const CLI::Validator& check, const char* text) {
    verb.add_option(name, value, text)->check(check)->capture_default_str();
  };
  add("--temp", o.temperature, not_negative(), "temperature; 0 is greedy and exact");
  add("--top-k", o.top_k, at_least(0), "keep the K most probable; 0: all");
  add("--top-p", o.top_p, share_above_0(), "keep the fewest that reach this probability; 1: all");
  add("--min-p", o.min_p, share(), "drop what is below this share of the best; 0: none");
  add("--typical", o.typical_p, share_above_0(), "locally typical sampling; 1: off");
  add_penalty_flags(verb, flags);
  verb.add_option("--dry-breaker", flags.breakers, "text that ends a repetition (default: newline : \" *)")
      ->allow_extra_args(false);
  verb.add_option("--logit-bias", flags.bias, "ID=VALUE added to a token's logit; -inf forbids it")
      ->check(as_bias())
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

}  // namespace stoke::cli
