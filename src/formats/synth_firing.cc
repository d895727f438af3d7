#include "formats/synth_firing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/synth_blocks.h"

namespace stoke::formats {
namespace {

constexpr int kRanks = 500;  // a curve is fitted over this many neurons; every share used is a whole number of them
constexpr int kHalvings = 48;

// Which share of the neurons takes which share of the firings.
struct Share {
  double neurons = 0;
  double firings = 0;
};

Share share_of(SynthSkew skew) {
  return skew == SynthSkew::kPublished ? Share{.neurons = 0.26, .firings = 0.80}
                                       : Share{.neurons = 0.25, .firings = 0.56};
}

double top_share(const FiringCurve& curve, double neurons) {
  double top = 0, all = 0;
  const std::vector<double> biases = firing_biases(curve, kRanks);
  for (size_t i = 0; i < biases.size(); ++i) {
    const double p = normal_cdf(biases[i]);
    all += p;
    if (static_cast<double>(i) + 0.5 < neurons * kRanks) top += p;
  }
  return top / all;
}

// Ranked biases of this spread whose mean probability is the density.
FiringCurve curve_of(double spread, double density) {
  return {.middle = normal_quantile(density) * std::sqrt(1 + spread * spread), .spread = spread};
}

}  // namespace

Result<SynthSkew> find_skew(std::string_view name) {
  if (name == "published") return SynthSkew::kPublished;
  if (name == "measured") return SynthSkew::kMeasured;
  if (name == "uniform") return SynthSkew::kUniform;
  return Status(Code::kInvalid, fmt::format("--skew {}: there are published, measured, uniform", name));
}

double normal_cdf(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

double normal_quantile(double p) {
  double low = -9, high = 9;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (normal_cdf(middle) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

Result<FiringCurve> fit_firing(SynthSkew skew, double density) {
  if (skew == SynthSkew::kUniform) return curve_of(0, density);
  const Share wanted = share_of(skew);
  constexpr double kSpreadMax = 6;  // beyond it neurons fire always or never
  double low = 0, high = kSpreadMax;
  if (top_share(curve_of(high, density), wanted.neurons) < wanted.firings) {
    return Status(Code::kInvalid,
                  fmt::format("a density of {:.2f} cannot have {:.0f} % of the neurons take {:.0f} % of the firings, "
                              "since none fires more than always; lower --density or take --skew uniform",
                              density, wanted.neurons * 100, wanted.firings * 100));
  }
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (top_share(curve_of(middle, density), wanted.neurons) < wanted.firings ? low : high) = middle;
  }
  return curve_of(high, density);
}

std::vector<double> layer_densities(SynthSkew skew, double mean, int64_t layers, uint64_t seed) {
  constexpr double kLow = 3, kHigh = 31;  // per cent, of the real model's layers
  std::vector<double> densities(static_cast<size_t>(layers), mean);
  if (skew != SynthSkew::kMeasured || layers == 1) return densities;
  for (size_t i = 0; i < densities.size(); ++i) {
    const double at = static_cast<double>(i) / static_cast<double>(layers - 1);
    densities[i] = mean * (kLow + at * (kHigh - kLow)) / ((kLow + kHigh) / 2);
  }
  Random random(seed);
  shuffle(random, densities);
  return densities;
}

std::vector<double> firing_biases(const FiringCurve& curve, int64_t count) {
  std::vector<double> biases(static_cast<size_t>(count));
  for (size_t i = 0; i < biases.size(); ++i) {
    const double rank = 1 - (static_cast<double>(i) + 0.5) / static_cast<double>(count);
    biases[i] = curve.middle + (curve.spread == 0 ? 0 : curve.spread * normal_quantile(rank));
  }
  return biases;
}

// The bivariate normal orthant: p^2 + integral of its derivative by the correlation (Plackett), by Simpson's rule.
double both_fire(double bias, double correlation) {
  constexpr int kSteps = 32;
  auto slope = [bias](double r) {
    return std::exp(-bias * bias / (1 + r)) / (2 * std::numbers::pi * std::sqrt(1 - r * r));
  };
  const double step = correlation / kSteps;
  double sum = slope(0) + slope(correlation);
  for (int i = 1; i < kSteps; ++i) sum += slope(i * step) * (i % 2 == 1 ? 4 : 2);
  const double p = normal_cdf(bias);
  return p * p + sum * step / 3;
}

double firing_overlap(std::span<const FiringCurve> curves, double correlation) {
  double both = 0, once = 0;
  for (const FiringCurve& curve : curves) {
    for (const double bias : firing_biases(curve, kRanks)) {
      both += both_fire(bias, correlation);
      once += normal_cdf(bias);
    }
  }
  return both / once;
}

Result<double> firing_correlation(std::span<const FiringCurve> curves, double overlap, double correlation_max) {
  if (overlap <= firing_overlap(curves, 0)) return 0.0;
  const double most = firing_overlap(curves, correlation_max);
  if (overlap > most) {
    return Status(Code::kInvalid, fmt::format("--firing-locality {:.2f}: at most {:.2f} is possible at this density "
                                              "and skew",
                                              overlap, most));
  }
  double low = 0, high = correlation_max;
  for (int i = 0; i < 24; ++i) {
    const double middle = (low + high) / 2;
    (firing_overlap(curves, middle) < overlap ? low : high) = middle;
  }
  return high;
}

}  // namespace stoke::formats
