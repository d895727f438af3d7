// Traces of unit uses for bench_cache_policies: synthetic neurons and experts, or a file.
//
// A trace is a row of steps; a step is one layer of one token: the units looked up together, in ascending order.
// Thread role: any, plain data. Errors: a file that is not a trace ends the program with one line;
// parse_trace() says kCorrupt, kUnsupported (more units than tables have room for) or kInvalid (none used).
#pragma once

#include <algorithm>
#include <cstdint>
#include <istream>
#include <string>
#include <vector>

#include "base/status.h"

namespace stoke::bench {

struct Trace {
  std::string name;
  int64_t units = 0;
  std::vector<int32_t> uses;   // unit ids, all steps behind each other
  std::vector<int64_t> steps;  // where each step ends in `uses`
  std::vector<bool> last;      // whether the step is its token's last

  void use(int64_t unit) { uses.push_back(static_cast<int32_t>(unit)); }
  void end_step() {
    steps.push_back(static_cast<int64_t>(uses.size()));
    last.push_back(false);
  }
  void end_token() {
    if (!last.empty()) last.back() = true;
  }
  int64_t tokens() const { return std::count(last.begin(), last.end(), true); }
};

// Firing probabilities: their mean over all neurons, and the share of all firings that `top` of the neurons take.
struct NeuronShape {
  std::string name;
  double density = 0.12;
  double density_least = 0.12;  // layers go from least to most, evenly spaced about the mean
  double density_most = 0.12;
  double top = 0.26;
  double top_share = 0.80;    // equal to `top`: all neurons alike
  double fired_before = 0.0;  // share of firings by neurons that fired at the token before; 0: independent tokens
};
NeuronShape published();
NeuronShape measured();
NeuronShape uniform();

// Neurons fire by chance, each with a probability of its own, drawn from a logistic-normal distribution that fits the
// shape; where tokens are not independent a neuron repeats itself with some chance, and is drawn anew otherwise.
Trace neurons(const NeuronShape& shape, int layers, int64_t per_layer, int tokens, uint64_t seed);

// Experts: popularity by Zipf's law, permuted in each layer; each of the token before's experts stays with chance
// `stay`.
struct ExpertShape {
  int layers = 48;
  int experts = 128;
  int used = 8;
  double zipf = 0.6;
  double stay = 0.3;
};
Trace experts(const ExpertShape& shape, int tokens, uint64_t seed);

// Text: lines `layer unit unit unit ...`, units ascending, tokens separated by an empty line; as `stoke run --firings
// FILE` writes it (src/pipeline/firing_log.h), whose first line says how many layers and units a layer there are.
// Without that line: as many as occur.
Result<Trace> parse_trace(std::istream& text, const std::string& name);
Trace from_file(const std::string& path);

}  // namespace stoke::bench
