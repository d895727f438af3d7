#include "formats/synth_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/synth_blocks.h"

namespace stoke::formats {
namespace {

// What the layers together add to a token's own energy, which is 1 in the embedding. Small, so that a wrong guess of it
// matters little; not so small that the next token depends on the last one alone.
constexpr double kFfnGrowth = 0.5;
constexpr double kAttentionGrowth = 0.25;  // at the first position; later ones average over many, and add less
constexpr double kSlowShareMax = 0.9;      // of the noise
constexpr double kSiluSquare = 0.3557;     // mean of silu(n)^2 for normal n

uint64_t layer_seed(uint64_t seed, uint64_t purpose, int64_t layer) {
  return seed * 0x9e3779b97f4a7c15u ^ (purpose << 32 | static_cast<uint64_t>(layer));
}
constexpr uint64_t kForDensity = 1, kForGate = 2, kForRouter = 3, kForFit = 4;

double column_deviation(const SynthTensor& tensor) { return 1 / std::sqrt(static_cast<double>(tensor.shape.back())); }

// Mean of relu(bias + n)^2 for normal n.
double relu_square(double bias) {
  const double peak = std::exp(-bias * bias / 2) / std::sqrt(2 * std::numbers::pi);
  return (1 + bias * bias) * normal_cdf(bias) + bias * peak;
}

Status check_share(const char* flag, double value, double low, double high) {
  if (value >= low && value <= high) return ok_status();
  return Status(Code::kInvalid, fmt::format("{} {}: {} to {} are possible", flag, value, low, high));
}

}  // namespace

Result<SynthPlan> SynthPlan::make(const SynthShape& shape, const SynthActivity& activity, uint64_t seed) {
  SynthPlan plan(shape, seed);
  plan.fires_ = activity.density > 0 && (shape.activation == "relu" || shape.activation == "drelu");
  plan.routes_ = shape.experts > 0 && (plan.fires_ || activity.router_skew != 0 || activity.router_locality != 0);
  if (!plan.active()) return plan;
  if (shape.arch == "gemma3") {
    return Status(Code::kInvalid,
                  "--arch gemma3: norms after its layers fix their output, so synth cannot set what "
                  "fires; take llama or qwen3");
  }
  constexpr int64_t kDimMin = 2 * (kConstantDims + kSlowDims);
  if (shape.dim < kDimMin || shape.dim % 32 != 0) {
    return Status(Code::kInvalid, fmt::format("--dim {}: where firing or routing is set it is a multiple of 32, {} or "
                                              "more",
                                              shape.dim, kDimMin));
  }
  plan.recency_ = fit_recency(shape.head_dim, shape.rope_base);
  if (plan.fires_) STOKE_TRY(plan.plan_firing(activity));
  if (plan.routes_) STOKE_TRY(plan.plan_routing(activity));
  plan.slow_ = plan.firing_slow_ > 0 || plan.router_slow_ > 0;
  if (plan.slow_ && plan.recency_.first + plan.recency_.pairs >= shape.head_dim / 2) {
    return Status(Code::kInvalid, fmt::format("--head-dim {}: too small for heads that attend to the last few tokens, "
                                              "which locality wants",
                                              shape.head_dim));
  }
  return plan;
}

Status SynthPlan::plan_firing(const SynthActivity& activity) {
  constexpr double kMeasuredLocality = 0.45;
  hot_first_ = activity.hot_first;
  STOKE_TRY(check_share("--density", activity.density, 0.001, 0.9));
  double locality = activity.firing_locality;
  if (locality < 0) locality = activity.skew == SynthSkew::kMeasured ? kMeasuredLocality : 0;
  STOKE_TRY(check_share("--firing-locality", locality, 0, 1));
  for (const double density :
       layer_densities(activity.skew, activity.density, shape_.layers, layer_seed(seed_, kForDensity, 0))) {
    STOKE_ASSIGN(const FiringCurve curve, fit_firing(activity.skew, density));
    curves_.push_back(curve);
  }
  const double most = kSlowShareMax * recency_.correlation;
  STOKE_ASSIGN(const double correlation, firing_correlation(curves_, locality, most));
  if (correlation > 0) firing_slow_ = correlation / recency_.correlation;
  return ok_status();
}

Status SynthPlan::plan_routing(const SynthActivity& activity) {
  STOKE_TRY(check_share("--router-skew", activity.router_skew, 0, 4));
  STOKE_TRY(check_share("--router-locality", activity.router_locality, 0, 1));
  const RoutingWish wish = {.experts = shape_.experts,
                            .used = shape_.experts_used,
                            .skew = activity.router_skew,
                            .locality = activity.router_locality,
                            .correlation_max = kSlowShareMax * recency_.correlation};
  STOKE_ASSIGN(routing_, fit_routing(wish, layer_seed(seed_, kForFit, 0)));
  if (routing_.correlation > 0) router_slow_ = routing_.correlation / recency_.correlation;
  return ok_status();
}

double SynthPlan::stream_energy(int64_t layer) const {
  return 1 + kFfnGrowth * static_cast<double>(layer) / static_cast<double>(shape_.layers);
}

double SynthPlan::mean_square(int64_t layer) const {
  const auto dim = static_cast<double>(shape_.dim);
  const double own = dim - kConstantDims - kSlowDims;
  return (kConstantDims + (slow_ ? kSlowDims : 0) + own * stream_energy(layer)) / dim;
}

// So that the FFN adds its part of kFfnGrowth: the variance of its inner activations is known.
double SynthPlan::down_deviation(int64_t layer) const {
  double square = kSiluSquare;
  if (fires_) {
    square = 0;
    const std::vector<double> biases = firing_biases(curves_[static_cast<size_t>(layer)], shape_.ffn);
    for (const double bias : biases) square += relu_square(bias) / static_cast<double>(shape_.ffn);
    if (shape_.activation == "drelu") square /= 2;
  }
  const double norm = mean_square(layer);
  square *= static_cast<double>(shape_.ffn) / (norm * norm);
  if (shape_.experts > 0) square /= static_cast<double>(shape_.experts_used);  // weights add up to 1
  return std::sqrt(kFfnGrowth / static_cast<double>(shape_.layers) / square);
}

// In the order of the gate's rows: by chance as in any model, unless they are to lie as a converter would put them.
std::vector<float> SynthPlan::gate_biases(int64_t layer) const {
  const std::vector<double> ranked = firing_biases(curves_[static_cast<size_t>(layer)], shape_.ffn);
  std::vector<float> all;
  Random random(layer_seed(seed_, kForGate, layer));
  for (int64_t e = 0; e < std::max<int64_t>(1, shape_.experts); ++e) {
    std::vector<float> mixed(ranked.begin(), ranked.end());
    if (!hot_first_) shuffle(random, mixed);
    all.insert(all.end(), mixed.begin(), mixed.end());
  }
  return all;
}

std::vector<float> SynthPlan::router_biases(int64_t layer) const {
  std::vector<float> biases(routing_.biases.begin(), routing_.biases.end());
  Random random(layer_seed(seed_, kForRouter, layer));
  shuffle(random, biases);
  return biases;
}

std::vector<float> SynthPlan::probabilities(int64_t layer) const {
  std::vector<float> out = gate_biases(layer);
  for (float& value : out) value = static_cast<float>(normal_cdf(value));
  return out;
}

std::vector<double> SynthPlan::expert_shares(int64_t layer) const {
  if (shape_.experts == 0) return {1.0};
  const double even = static_cast<double>(shape_.experts_used) / static_cast<double>(shape_.experts);
  if (routing_.popularity.empty()) return std::vector<double>(static_cast<size_t>(shape_.experts), even);
  std::vector<double> shares = routing_.popularity;
  Random random(layer_seed(seed_, kForRouter, layer));  // as router_biases() does
  shuffle(random, shares);
  return shares;
}

// A row whose product with the stream has variance 1, the given share of it from the slow dimensions. The stream is
// divided by its own norm before products: that scales bias and noise alike, so nothing here depends on it.
SynthRecipe SynthPlan::reader(double slow_variance, int64_t layer) const {
  const double own = static_cast<double>(shape_.dim - kConstantDims - kSlowDims) * stream_energy(layer);
  return {.deviation = std::sqrt((1 - slow_variance) / own),
          .reads_stream = true,
          .slow_deviation = std::sqrt(slow_variance / kSlowDims)};
}

// What queries and keys hold in each pair used, so that q . k / sqrt(head_dim) = scale * sum of cosines.
double SynthPlan::recency_value() const {
  return std::sqrt(recency_.scale * std::sqrt(static_cast<double>(shape_.head_dim)));
}

// Every head of the first layer attends to the last few tokens: queries and keys read the constant dimensions alone,
// and have the same value in some pairs and zero elsewhere. The slowest pair, which hardly turns, takes from the score
// what the others give at distance 0: keys are longer or shorter with their token's norm, by 1.4 % at dim 1024, and
// scores of 36 would turn that into weights half as large again.
std::vector<float> SynthPlan::recency_rows(bool query) const {
  const bool pairs_adjoin = shape_.arch == "llama";
  std::vector<float> rows(static_cast<size_t>(shape_.head_dim), 0.0F);
  auto first_of = [&](int64_t pair) -> float& { return rows[static_cast<size_t>(pairs_adjoin ? 2 * pair : pair)]; };
  const double norm = std::sqrt(mean_square(0) - kSlowDims / static_cast<double>(shape_.dim));
  const double value = recency_value() * norm / kConstantDims;
  for (int64_t i = 0; i < recency_.pairs; ++i) first_of(recency_.first + i) = static_cast<float>(value);
  const double balance = value * std::sqrt(static_cast<double>(recency_.pairs));
  first_of(shape_.head_dim / 2 - 1) = static_cast<float>(query ? -balance : balance);
  return rows;
}

SynthRecipe SynthPlan::first_attention(const SynthTensor& tensor) const {
  SynthRecipe recipe = reader(0, 0);
  if (tensor.role == SynthRole::kQ || tensor.role == SynthRole::kK) {
    recipe.deviation = 0;
    recipe.constants = recency_rows(tensor.role == SynthRole::kQ);
  }
  return recipe;
}

SynthRecipe SynthPlan::recipe(const SynthTensor& tensor) const {
  const double plain = column_deviation(tensor);
  switch (tensor.role) {
    case SynthRole::kNorm:
      if (slow_ && (tensor.name == "blk.0.attn_q_norm.weight" || tensor.name == "blk.0.attn_k_norm.weight")) {
        // These norms make the mean square of a head 1, which is spread over the pairs used and the balance.
        const double spread = 2 * static_cast<double>(recency_.pairs) / static_cast<double>(shape_.head_dim);
        return {.constants = {static_cast<float>(recency_value() * std::sqrt(spread))}, .vector = true};
      }
      return {.constants = {1.0F}, .vector = true};
    case SynthRole::kEmbedding:
      return {.deviation = 1, .reads_stream = true, .constants = {1.0F}};
    case SynthRole::kOutput:
      return {.deviation = plain, .reads_stream = true};
    case SynthRole::kQ:
    case SynthRole::kK:
    case SynthRole::kV:
      return slow_ && tensor.layer == 0 ? first_attention(tensor) : reader(0, tensor.layer);
    case SynthRole::kUp:
      return reader(0, tensor.layer);
    case SynthRole::kAttentionOutput: {
      const double variance = kAttentionGrowth / static_cast<double>(shape_.layers) * mean_square(tensor.layer);
      SynthRecipe recipe = {.deviation = plain * std::sqrt(variance), .stream_rows = shape_.dim};
      // The first layer's norm sees no slow part yet.
      const double values = 1 / (mean_square(0) - kSlowDims / static_cast<double>(shape_.dim));
      if (slow_ && tensor.layer == 0) recipe.slow_rows_deviation = plain / std::sqrt(recency_.energy * values);
      return recipe;
    }
    case SynthRole::kDown:
      return {.deviation = down_deviation(tensor.layer), .stream_rows = shape_.dim};
    case SynthRole::kGate: {
      SynthRecipe recipe = reader(fires_ ? firing_slow_ : 0, tensor.layer);
      if (fires_) recipe.constants = gate_biases(tensor.layer);
      for (float& value : recipe.constants) value /= kConstantDims;
      return recipe;
    }
    case SynthRole::kRouter: {
      SynthRecipe recipe = reader(router_slow_, tensor.layer);
      recipe.constants = router_biases(tensor.layer);
      for (float& value : recipe.constants) value /= kConstantDims;
      return recipe;
    }
  }
  return {};
}

Result<DType> SynthPlan::adjust_type(const SynthTensor& tensor, DType type) const {
  if (!active() || takes_constant(type)) return type;
  if (fires_ && tensor.role == SynthRole::kGate) {
    return Status(Code::kInvalid, fmt::format("--type: {} cannot hold a bias for each gate row; ReLU shapes take f32, "
                                              "f16, bf16, q8_0, q5_0, q5_1, q4_0, q4_1 or iq4_nl",
                                              info(type).name));
  }
  const bool reads = recipe(tensor).reads_stream;
  const bool first = tensor.layer == 0 && (tensor.role == SynthRole::kQ || tensor.role == SynthRole::kK);
  // Elsewhere the constant reaches products as a small offset, which changes nothing that is set.
  return reads && (tensor.role == SynthRole::kEmbedding || first) ? DType::kQ8_0 : type;
}

}  // namespace stoke::formats
