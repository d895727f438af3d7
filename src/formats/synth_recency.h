// A head that attends to the last few tokens: what gives synthetic models a state that changes slowly from token to
// token, so that neurons and experts can be made likely to stay.
//
// Queries and keys that are the same for every token leave scores that depend on distance alone through the rotation:
// scale * sum over some pairs of cos(distance * frequency), highest at distance 0. The softmax of it weighs the last
// few values. Thread role: any; pure functions.
#pragma once

#include <cstdint>

namespace stoke::formats {

struct Recency {
  int64_t first = 0;       // pair of a head
  int64_t pairs = 0;       // used, from there on; 0: the head is too small
  double scale = 0;        // of their scores
  double energy = 0;       // sum of squared weights: the variance of an average of values of variance 1
  double correlation = 0;  // of the averages of consecutive tokens, where values are not correlated
};

// The scale that makes about eight tokens count.
Recency fit_recency(int64_t head_dim, double rope_base);

}  // namespace stoke::formats
