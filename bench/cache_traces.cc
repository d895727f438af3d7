#include "cache_traces.h"

#include <fmt/format.h>

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

namespace stoke::bench {
namespace {

// Quantiles of the standard normal, by 1000 steps: neurons' probabilities without noise in the fit.
std::vector<double> normal_quantiles() {
  std::vector<double> z;
  for (int i = 0; i < 1000; ++i) {
    const double p = (i + 0.5) / 1000;
    double low = -8;
    double high = 8;
    for (int step = 0; step < 60; ++step) {
      const double middle = (low + high) / 2;
      (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
    }
    z.push_back(low);
  }
  return z;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<double> probabilities(const std::vector<double>& z, double mean, double spread) {
  std::vector<double> p;
  for (const double at : z) p.push_back(sigmoid(mean + spread * at));
  return p;
}

double average(const std::vector<double>& p) { return std::accumulate(p.begin(), p.end(), 0.0) / p.size(); }

// The mean of the logits that gives this density.
double fit_mean(const std::vector<double>& z, double density, double spread) {
  double low = -40;
  double high = 40;
  for (int step = 0; step < 50; ++step) {
    const double middle = (low + high) / 2;
    (average(probabilities(z, middle, spread)) < density ? low : high) = middle;
  }
  return low;
}

// The spread of the logits at which `top` of the neurons take `top_share` of the firings.
double fit_spread(const std::vector<double>& z, const NeuronShape& shape) {
  if (shape.top_share <= shape.top) return 0;
  double low = 0;
  double high = 20;
  for (int step = 0; step < 30; ++step) {
    const double middle = (low + high) / 2;
    const std::vector<double> p = probabilities(z, fit_mean(z, shape.density, middle), middle);
    const double taken = std::accumulate(p.end() - std::lround(shape.top * p.size()), p.end(), 0.0) / p.size();
    (taken < shape.top_share * shape.density ? low : high) = middle;
  }
  return low;
}

struct Neuron {
  double chance = 0;
  bool fired = false;
};

std::vector<Neuron> draw_neurons(const NeuronShape& shape, int layers, int64_t per_layer, std::mt19937_64& random) {
  const std::vector<double> z = normal_quantiles();
  const double spread = fit_spread(z, shape);
  std::normal_distribution<double> normal;
  std::vector<Neuron> all;
  for (int layer = 0; layer < layers; ++layer) {
    // Two straight lines that meet at the mean in the middle.
    const double at = layers > 1 ? 2.0 * layer / (layers - 1) - 1 : 0;
    const double end = at < 0 ? shape.density_least : shape.density_most;
    const double mean = fit_mean(z, shape.density + (end - shape.density) * std::abs(at), spread);
    for (int64_t i = 0; i < per_layer; ++i) all.push_back({.chance = sigmoid(mean + spread * normal(random))});
  }
  return all;
}

// How often a neuron repeats itself: independent tokens give E[p^2] / E[p] already.
double repeat_chance(const std::vector<Neuron>& all, double fired_before) {
  double sum = 0;
  double squares = 0;
  for (const Neuron& neuron : all) {
    sum += neuron.chance;
    squares += neuron.chance * neuron.chance;
  }
  const double by_chance = squares / sum;
  return std::max(0.0, (fired_before - by_chance) / (1 - by_chance));
}

// Units that a replay's tables have room for; the largest models have a few million.
constexpr int64_t kUnitsMax = int64_t{1} << 26;

struct FileStep {
  int64_t layer = 0;
  std::vector<int64_t> units;
  bool last = false;
};

// The steps of a file, and how many layers and units a layer there are.
struct FileSteps {
  std::vector<FileStep> steps;
  int64_t layers = 0;
  int64_t per_layer = 0;

  // A line that says how many there are; a file may be several, one behind another.
  void add_head(const std::string& line) {
    int64_t more_layers = 0;
    int64_t more_units = 0;
    std::sscanf(line.c_str(), "# firings: %" SCNd64 " layers of %" SCNd64, &more_layers, &more_units);
    layers = std::max(layers, more_layers);
    per_layer = std::max(per_layer, more_units);
  }
  void add(FileStep step) {
    layers = std::max(layers, step.layer + 1);
    if (!step.units.empty()) per_layer = std::max(per_layer, step.units.back() + 1);
    steps.push_back(std::move(step));
  }
};

// One line of a trace file: a layer and its units, ascending.
bool parse_line(const std::string& line, FileStep* step) {
  std::istringstream words(line);
  words >> step->layer;
  for (int64_t unit = 0; words >> unit;) {
    if (unit < 0 || unit >= kUnitsMax || (!step->units.empty() && unit <= step->units.back())) return false;
    step->units.push_back(unit);
  }
  return words.eof() && step->layer >= 0 && step->layer < kUnitsMax;
}

Result<FileSteps> parse_steps(std::istream& text, const std::string& name) {
  FileSteps out;
  int64_t number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    if (line.starts_with('#')) {
      out.add_head(line);
      continue;
    }
    if (line.find_first_not_of(" \t\r") == std::string::npos) {
      if (!out.steps.empty()) out.steps.back().last = true;
      continue;
    }
    FileStep step;
    if (!parse_line(line, &step)) {
      return Status(Code::kCorrupt, fmt::format("{}: line {} is not a layer and its units, ascending", name, number));
    }
    out.add(std::move(step));
  }
  return out;
}

}  // namespace

NeuronShape published() { return {.name = "published"}; }
NeuronShape measured() {
  return {.name = "measured",
          .density = 0.18,
          .density_least = 0.03,
          .density_most = 0.31,
          .top = 0.25,
          .top_share = 0.56,
          .fired_before = 0.45};
}
NeuronShape uniform() { return {.name = "uniform", .top_share = 0}; }

Trace neurons(const NeuronShape& shape, int layers, int64_t per_layer, int tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Neuron> all = draw_neurons(shape, layers, per_layer, random);
  const double repeat = repeat_chance(all, shape.fired_before);
  std::uniform_real_distribution<float> chance;
  Trace trace{.name = "neurons-" + shape.name, .units = layers * per_layer};
  for (int token = 0; token < tokens; ++token) {
    for (int64_t unit = 0; unit < trace.units; ++unit) {
      Neuron& neuron = all[unit];
      if (token == 0 || repeat == 0 || chance(random) >= repeat) neuron.fired = chance(random) < neuron.chance;
      if (neuron.fired) trace.use(unit);
      if ((unit + 1) % per_layer == 0) trace.end_step();
    }
    trace.end_token();
  }
  return trace;
}

Trace experts(const ExpertShape& shape, int tokens, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> chance;
  Trace trace{.name = fmt::format("experts-stay-{}", shape.stay), .units = shape.layers * shape.experts};
  std::vector<std::discrete_distribution<int>> popularity;
  for (int layer = 0; layer < shape.layers; ++layer) {
    std::vector<double> weights;
    for (int rank = 1; rank <= shape.experts; ++rank) weights.push_back(std::pow(rank, -shape.zipf));
    std::shuffle(weights.begin(), weights.end(), random);
    popularity.emplace_back(weights.begin(), weights.end());
  }
  std::vector<std::vector<int>> before(shape.layers);
  for (int token = 0; token < tokens; ++token) {
    for (int layer = 0; layer < shape.layers; ++layer) {
      std::vector<int> now;
      for (const int expert : before[layer]) {
        if (chance(random) < shape.stay) now.push_back(expert);
      }
      while (static_cast<int>(now.size()) < shape.used) {
        const int expert = popularity[layer](random);
        if (std::find(now.begin(), now.end(), expert) == now.end()) now.push_back(expert);
      }
      std::sort(now.begin(), now.end());
      for (const int expert : now) trace.use(static_cast<int64_t>(layer) * shape.experts + expert);
      trace.end_step();
      before[layer] = now;
    }
    trace.end_token();
  }
  return trace;
}

Result<Trace> parse_trace(std::istream& text, const std::string& name) {
  STOKE_ASSIGN(const FileSteps file, parse_steps(text, name));
  const bool used = std::any_of(file.steps.begin(), file.steps.end(), [](const auto& s) { return !s.units.empty(); });
  if (!used) return Status(Code::kInvalid, fmt::format("{}: no unit is used", name));
  if (file.layers > kUnitsMax || file.per_layer > kUnitsMax || file.layers * file.per_layer > kUnitsMax) {
    return Status(Code::kUnsupported, fmt::format("{}: {} layers of {} units; at most {} units in all are possible",
                                                  name, file.layers, file.per_layer, kUnitsMax));
  }
  Trace trace{.name = name, .units = file.layers * file.per_layer};
  for (const FileStep& step : file.steps) {
    for (const int64_t unit : step.units) trace.use(step.layer * file.per_layer + unit);
    trace.end_step();
    if (step.last) trace.end_token();
  }
  trace.end_token();
  return trace;
}

Trace from_file(const std::string& path) {
  std::ifstream file(path);
  Result<Trace> trace = file ? parse_trace(file, path.substr(path.find_last_of('/') + 1))
                             : Status(Code::kNotFound, fmt::format("cannot open {}", path));
  if (trace.ok()) return std::move(trace).value();
  fmt::print(stderr, "bench_cache_policies: {}\n", trace.status().message());
  std::exit(1);
}

}  // namespace stoke::bench
