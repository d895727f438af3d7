// How often each neuron of a synthetic ReLU model fires: curves fitted to a density and to a published skew.
//
// A neuron fires where bias + noise > 0, the noise being normal with deviation 1, so a bias is the normal quantile of a
// firing probability. Over a layer's neurons, ranked, the biases are middle + spread * (normal quantile of the rank):
// two numbers give the wanted density and share of firings, and every probability stays below 1.
// Thread role: any; pure functions. Errors: kInvalid for what no curve can give.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace stoke::formats {

enum class SynthSkew : uint8_t {
  kPublished,  // 26 % of a layer's neurons take 80 % of its firings (PowerInfer's figure for OPT-30B)
  kMeasured,   // 10, 25, 50 % take about 32, 56, 80 %; layers' densities spread as 3 to 31 do around their mean
  kUniform,    // all alike
};
Result<SynthSkew> find_skew(std::string_view name);

double normal_cdf(double z);
double normal_quantile(double p);  // requires: 0 < p < 1

struct FiringCurve {
  double middle = 0;
  double spread = 0;
};
// Requires: 0 < density < 1.
Result<FiringCurve> fit_firing(SynthSkew skew, double density);
// The density of each layer; their mean is the one asked for.
std::vector<double> layer_densities(SynthSkew skew, double mean, int64_t layers, uint64_t seed);
// Biases of `count` neurons, those that fire most first.
std::vector<double> firing_biases(const FiringCurve& curve, int64_t count);

// Probability that a neuron fires for two tokens whose noise is so correlated.
double both_fire(double bias, double correlation);
// Share of firing neurons that fired at the previous token, too.
double firing_overlap(std::span<const FiringCurve> curves, double correlation);
// The correlation that gives an overlap: 0 where skew alone gives as much or more. kInvalid above correlation_max.
Result<double> firing_correlation(std::span<const FiringCurve> curves, double overlap, double correlation_max);

}  // namespace stoke::formats
