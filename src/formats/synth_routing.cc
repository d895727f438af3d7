#include "formats/synth_routing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "formats/synth_blocks.h"
#include "formats/synth_firing.h"

namespace stoke::formats {
namespace {

constexpr int64_t kTokens = 2000;  // simulated
constexpr int kRounds = 24;        // of fitting; errors fall by half in each

// Zipf's law, cut where an expert would be used more than nearly always.
std::vector<double> popularity_of(const RoutingWish& wish) {
  constexpr double kMost = 0.97;
  std::vector<double> popularity(static_cast<size_t>(wish.experts));
  double low = 0, high = static_cast<double>(wish.experts) * 1e6;
  for (int i = 0; i < 64; ++i) {
    const double scale = (low + high) / 2;
    for (size_t e = 0; e < popularity.size(); ++e) {
      popularity[e] = std::min(kMost, scale * std::pow(static_cast<double>(e + 1), -wish.skew));
    }
    const double sum = std::accumulate(popularity.begin(), popularity.end(), 0.0);
    (sum < static_cast<double>(wish.used) ? low : high) = scale;
  }
  return popularity;
}

std::vector<float> noise_of(int64_t count, Random& random) {
  std::vector<float> noise(static_cast<size_t>(count));
  for (float& n : noise) n = static_cast<float>(normal_draw(random));
  return noise;
}

// Simulated choices: tokens x used expert numbers, ascending within a token.
std::vector<int32_t> choose(const std::vector<double>& biases, const std::vector<float>& noise, int64_t used) {
  const size_t experts = biases.size();
  std::vector<int32_t> chosen;
  std::vector<int32_t> order(experts);
  std::vector<double> logits(experts);
  for (size_t at = 0; at < noise.size(); at += experts) {
    for (size_t e = 0; e < experts; ++e) logits[e] = biases[e] + noise[at + e];
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + (used - 1), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    std::sort(order.begin(), order.begin() + used);
    chosen.insert(chosen.end(), order.begin(), order.begin() + used);
  }
  return chosen;
}

std::vector<double> fit_biases(const RoutingWish& wish, const std::vector<double>& popularity,
                               const std::vector<float>& noise) {
  std::vector<double> biases;
  biases.reserve(popularity.size());
  for (const double p : popularity) biases.push_back(normal_quantile(std::max(p, 1e-4)));
  if (wish.skew == 0 || wish.used == wish.experts) return std::vector<double>(popularity.size(), 0.0);
  const std::vector<double> wanted = biases;
  std::vector<double> count(biases.size());
  for (int round = 0; round < kRounds; ++round) {
    std::fill(count.begin(), count.end(), 0.5);
    for (const int32_t e : choose(biases, noise, wish.used)) count[static_cast<size_t>(e)] += 1;
    for (size_t e = 0; e < biases.size(); ++e) {
      biases[e] += (wanted[e] - normal_quantile(count[e] / (kTokens + 1.0))) / 2;
    }
  }
  return biases;
}

double overlap_of(const Routing& routing, const RoutingWish& wish, const std::vector<float>& first,
                  const std::vector<float>& other, double correlation) {
  std::vector<float> second(first.size());
  const double rest = std::sqrt(1 - correlation * correlation);
  for (size_t i = 0; i < second.size(); ++i) {
    second[i] = static_cast<float>(correlation * first[i] + rest * other[i]);
  }
  const std::vector<int32_t> a = choose(routing.biases, first, wish.used);
  const std::vector<int32_t> b = choose(routing.biases, second, wish.used);
  int64_t both = 0;
  for (size_t at = 0; at < a.size(); at += static_cast<size_t>(wish.used)) {
    const auto begin = b.begin() + static_cast<std::ptrdiff_t>(at);
    for (int64_t i = 0; i < wish.used; ++i) {
      both += std::binary_search(begin, begin + wish.used, a[at + static_cast<size_t>(i)]) ? 1 : 0;
    }
  }
  return static_cast<double>(both) / static_cast<double>(a.size());
}

}  // namespace

Result<Routing> fit_routing(const RoutingWish& wish, uint64_t seed) {
  Random random(seed);
  const std::vector<float> first = noise_of(kTokens * wish.experts, random);
  const std::vector<float> other = noise_of(kTokens * wish.experts, random);
  Routing routing;
  routing.popularity = popularity_of(wish);
  routing.biases = fit_biases(wish, routing.popularity, first);
  if (wish.locality <= overlap_of(routing, wish, first, other, 0)) return routing;
  const double most = overlap_of(routing, wish, first, other, wish.correlation_max);
  if (wish.locality > most) {
    return Status(Code::kInvalid, fmt::format("--router-locality {:.2f}: at most {:.2f} is possible with {} of {} "
                                              "experts and --router-skew {}",
                                              wish.locality, most, wish.used, wish.experts, wish.skew));
  }
  double low = 0, high = wish.correlation_max;
  for (int i = 0; i < 10; ++i) {
    const double middle = (low + high) / 2;
    (overlap_of(routing, wish, first, other, middle) < wish.locality ? low : high) = middle;
  }
  routing.correlation = high;
  return routing;
}

}  // namespace stoke::formats
