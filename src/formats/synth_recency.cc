#include "formats/synth_recency.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace stoke::formats {
namespace {

constexpr int kDistances = 4096;
// Radians a token. Faster pairs make so sharp a peak that far tokens together outweigh the near ones; with these the
// window is nearly a bell, and the average's energy is the same from 16 to 32768 tokens of context.
constexpr double kFastest = 0.1;
constexpr double kSlowest = 0.003;
constexpr double kTokens = 8;  // (sum w)^2 / sum w^2; consecutive averages then correlate by 0.87

struct Window {
  double energy = 0;
  double correlation = 0;
};

Window window_of(const std::vector<double>& kernel, double scale) {
  std::vector<double> weights;
  double sum = 0;
  for (const double k : kernel) {
    weights.push_back(std::exp(scale * (k - kernel[0])));
    sum += weights.back();
  }
  double square = 0, next = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    square += weights[i] * weights[i];
    if (i > 0) next += weights[i] * weights[i - 1];
  }
  return {.energy = square / (sum * sum), .correlation = next / square};
}

}  // namespace

Recency fit_recency(int64_t head_dim, double rope_base) {
  Recency out;
  std::vector<double> kernel(kDistances, 0.0);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(rope_base, -2 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (frequency > kFastest) out.first = i + 1;
    if (frequency > kFastest || frequency < kSlowest) continue;
    ++out.pairs;
    for (int d = 0; d < kDistances; ++d) kernel[static_cast<size_t>(d)] += std::cos(d * frequency);
  }
  if (out.pairs == 0) return out;
  double low = 0, high = 400;
  for (int i = 0; i < 40; ++i) {
    const double middle = (low + high) / 2;
    (1 / window_of(kernel, middle).energy > kTokens ? low : high) = middle;
  }
  out.scale = high;
  const Window window = window_of(kernel, high);
  out.energy = window.energy;
  out.correlation = window.correlation;
  return out;
}

}  // namespace stoke::formats
