// How often each expert of a synthetic model is chosen, and how often again for the next token: router biases fitted by
// simulating the choice of the highest logits.
//
// Thread role: any; pure functions (the same seed gives the same numbers). Errors: kInvalid for what no router can
// give.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace stoke::formats {

struct RoutingWish {
  int64_t experts = 0;
  int64_t used = 0;
  double skew = 0;             // Zipf exponent of the experts' popularity; 0: all alike
  double locality = 0;         // share of a token's experts that the previous token used, too; 0: what skew gives
  double correlation_max = 0;  // between the logits' noise of consecutive tokens
};

struct Routing {
  std::vector<double> popularity;  // (experts): probability that a token uses it, most popular first
  std::vector<double> biases;      // (experts): of logits whose noise has deviation 1
  double correlation = 0;          // of the noise of consecutive tokens
};

Result<Routing> fit_routing(const RoutingWish& wish, uint64_t seed);

}  // namespace stoke::formats
