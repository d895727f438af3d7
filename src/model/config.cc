#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>

namespace stoke::model {
namespace {

// Limits that no real model comes near; they keep products of sizes far from overflow.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 28;
constexpr int64_t kMaxExperts = 4096;

struct ActivationName {
  const char* name;
  Activation activation;
};

constexpr ActivationName kActivationNames[] = {
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu_pytorch_tanh", Activation::kGelu},
    {"gelu_tanh", Activation::kGelu},
    {"relu", Activation::kRelu},
    {"drelu", Activation::kDrelu},
    {"fatrelu", Activation::kFatrelu},
    {"swiglu_oai", Activation::kSwigluOai},
};

struct Bound {
  const char* name;
  int64_t value, min, max;
};

Status check_bounds(std::initializer_list<Bound> bounds) {
  for (const Bound& b : bounds) {
    if (b.value < b.min || b.value > b.max) {
      return Status(Code::kCorrupt, fmt::format("{} is {}, expected {} to {}", b.name, b.value, b.min, b.max));
    }
  }
  return ok_status();
}

struct Real {
  const char* name;
  double value, min, max;
};

Status check_reals(std::initializer_list<Real> reals) {
  for (const Real& r : reals) {
    if (!(r.value >= r.min && r.value <= r.max)) {
      return Status(Code::kCorrupt, fmt::format("{} is {}, expected {} to {}", r.name, r.value, r.min, r.max));
    }
  }
  return ok_status();
}

Status check_factors(const char* name, const std::vector<float>& factors, size_t wanted) {
  if (factors.size() != wanted) {
    return Status(Code::kCorrupt, fmt::format("{} holds {} numbers, expected {}", name, factors.size(), wanted));
  }
  for (float f : factors) {
    if (!(f > 0) || !std::isfinite(f)) return Status(Code::kCorrupt, fmt::format("{} holds {}", name, f));
  }
  return ok_status();
}

Status validate_rope(const RopeConfig& rope, int head_dim) {
  STOKE_TRY(check_bounds({{"rotated dimensions", rope.n_rot, 2, head_dim}}));
  if (rope.n_rot % 2 != 0) {
    return Status(Code::kCorrupt, fmt::format("rotated dimensions is {}, expected an even number", rope.n_rot));
  }
  STOKE_TRY(check_reals({{"rope theta", rope.theta, 1, 1e15},
                         {"rope scaling factor", rope.factor, 1e-3, 1e6},
                         {"rope attention factor", rope.attention_factor, 1e-3, 1e3}}));
  const auto half = static_cast<size_t>(rope.n_rot / 2);
  if (!rope.freq_factors.empty()) STOKE_TRY(check_factors("rope frequency factors", rope.freq_factors, half));
  const bool needs_original = rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn ||
                              rope.scaling == RopeScaling::kLongrope;
  if (needs_original) {
    STOKE_TRY(check_bounds({{"rope original context length", rope.original_context, 1, kMaxContext}}));
  }
  if (rope.scaling == RopeScaling::kLongrope) {
    STOKE_TRY(check_factors("rope short factors", rope.short_factors, half));
    STOKE_TRY(check_factors("rope long factors", rope.long_factors, half));
  }
  if (rope.scaling == RopeScaling::kYarn) {
    STOKE_TRY(check_reals({{"rope beta_fast", rope.beta_fast, 1e-3, 1e6},
                           {"rope beta_slow", rope.beta_slow, 1e-3, 1e6},
                           {"rope theta", rope.theta, 1.001, 1e15}}));
  }
  if (rope.scaling == RopeScaling::kLlama3 && !(rope.high_freq_factor > rope.low_freq_factor)) {
    return Status(Code::kCorrupt, fmt::format("rope high_freq_factor {} is not above low_freq_factor {}",
                                              rope.high_freq_factor, rope.low_freq_factor));
  }
  return ok_status();
}

Status validate_moe(const MoeConfig& moe) {
  STOKE_TRY(check_bounds({{"experts", moe.experts, 0, kMaxExperts}}));
  if (moe.experts == 0) return ok_status();
  return check_bounds({{"experts used", moe.used, 1, moe.experts},
                       {"expert feed-forward length", moe.ffn, 1, kMaxWidth},
                       {"shared expert feed-forward length", moe.shared_ffn, 0, kMaxWidth}});
}

// Llama 3.1: long waves are stretched, short ones kept, those between blended.
double llama3_frequency(const RopeConfig& rope, double frequency) {
  const double original = static_cast<double>(rope.original_context);
  const double wave = 2 * M_PI / frequency;
  if (wave < original / rope.high_freq_factor) return frequency;
  if (wave > original / rope.low_freq_factor) return frequency / rope.factor;
  const double smooth = (original / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

// YaRN: the pair whose wave turns `rotations` times within the original context.
double yarn_dimension(const RopeConfig& rope, double rotations) {
  return rope.n_rot * std::log(static_cast<double>(rope.original_context) / (rotations * 2 * M_PI)) /
         (2 * std::log(rope.theta));
}

double yarn_frequency(const RopeConfig& rope, double frequency, int pair) {
  double low = yarn_dimension(rope, rope.beta_fast);
  double high = yarn_dimension(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.n_rot - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return frequency / rope.factor * ramp + frequency * (1 - ramp);
}

// `colon`: where the threshold begins in `name`, if there is one.
Result<NamedActivation> with_threshold(Activation kind, std::string_view name, size_t colon) {
  const bool wanted = kind == Activation::kFatrelu;
  if (!wanted && colon == std::string_view::npos) return NamedActivation{.kind = kind};
  NamedActivation out{.kind = kind, .threshold = -1};
  if (wanted && colon != std::string_view::npos) {
    const std::string_view text = name.substr(colon + 1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out.threshold);
    if (error != std::errc() || end != text.data() + text.size()) out.threshold = -1;
  }
  if (out.threshold >= 0 && std::isfinite(out.threshold)) return out;
  return Status(Code::kInvalid, fmt::format("activation \"{}\": {}", name,
                                            wanted ? "name its threshold, as in fatrelu:0.01" : "it has no threshold"));
}

}  // namespace

Result<NamedActivation> activation_from_name(std::string_view name) {
  const size_t colon = name.find(':');
  const std::string_view kind = name.substr(0, colon);
  std::string known;
  for (const ActivationName& row : kActivationNames) {
    if (kind == row.name) return with_threshold(row.activation, name, colon);
    known += known.empty() ? row.name : std::string(", ") + row.name;
  }
  return Status(Code::kUnsupported, fmt::format("unknown activation \"{}\"; known: {}", name, known));
}

std::string activation_name(const NamedActivation& activation) {
  for (const ActivationName& row : kActivationNames) {
    if (row.activation != activation.kind) continue;
    return activation.kind == Activation::kFatrelu ? fmt::format("{}:{}", row.name, activation.threshold) : row.name;
  }
  return "unknown";
}

std::vector<double> rope_frequencies(const RopeConfig& rope, int64_t context) {
  std::vector<double> frequencies(static_cast<size_t>(rope.n_rot / 2));
  const std::vector<float>& long_or_short = context > rope.original_context ? rope.long_factors : rope.short_factors;
  for (int i = 0; i < rope.n_rot / 2; ++i) {
    const auto at = static_cast<size_t>(i);
    double f = std::pow(rope.theta, -2.0 * i / rope.n_rot);
    if (!rope.freq_factors.empty()) f /= static_cast<double>(rope.freq_factors[at]);
    if (rope.scaling == RopeScaling::kLinear) f /= rope.factor;
    if (rope.scaling == RopeScaling::kLlama3) f = llama3_frequency(rope, f);
    if (rope.scaling == RopeScaling::kYarn) f = yarn_frequency(rope, f, i);
    if (rope.scaling == RopeScaling::kLongrope) f /= static_cast<double>(long_or_short[at]);
    frequencies[at] = f;
  }
  return frequencies;
}

Status validate(const Config& config) {
  STOKE_TRY(check_bounds({{"layers", config.layers, 1, kMaxLayers},
                          {"embedding length", config.dim, 1, kMaxWidth},
                          {"attention heads", config.heads, 1, kMaxHeads},
                          {"key/value heads", config.kv_heads, 1, config.heads},
                          {"head dimension", config.head_dim, 2, kMaxHeadDim},
                          {"feed-forward length", config.ffn, config.moe.experts > 0 ? 0 : 1, kMaxWidth},
                          {"vocabulary", config.vocab, 1, kMaxVocab},
                          {"context length", config.context, 1, kMaxContext}}));
  if (config.heads % config.kv_heads != 0) {
    return Status(Code::kCorrupt, fmt::format("attention heads {} is not a multiple of key/value heads {}",
                                              config.heads, config.kv_heads));
  }
  STOKE_TRY(check_reals({{"norm epsilon", config.norm_eps, 0, 1},
                         {"attention scale", config.attention_scale, 1e-6, 1e6},
                         {"attention soft cap", config.attention_softcap, 0, 1e6},
                         {"logit soft cap", config.logit_softcap, 0, 1e6},
                         {"embedding scale", config.embedding_scale, 1e-6, 1e6},
                         {"swiglu alpha", config.swiglu_alpha, 1e-3, 1e3},
                         {"swiglu limit", config.swiglu_limit, 1e-3, 1e6},
                         {"qkv clamp", config.clamp_qkv, 0, 1e6}}));
  STOKE_TRY(validate_rope(config.rope, config.head_dim));
  STOKE_TRY(validate_moe(config.moe));
  if (config.layer.size() != static_cast<size_t>(config.layers)) {
    return Status(Code::kCorrupt, fmt::format("{} layers described, expected {}", config.layer.size(), config.layers));
  }
  for (const LayerConfig& layer : config.layer) {
    STOKE_TRY(check_bounds({{"sliding window", layer.window, 0, kMaxContext}}));
    if (layer.local_rope) STOKE_TRY(validate_rope(config.local_rope, config.head_dim));
    if (layer.moe && config.moe.experts == 0) return Status(Code::kCorrupt, "expert layers without experts");
    if (!layer.moe && config.ffn == 0) return Status(Code::kCorrupt, "feed-forward length is 0");
  }
  return ok_status();
}

}  // namespace stoke::model
