// Which experts the next layer will probably use, told to the source ahead: the next layer's router, asked with this
// layer's input. The stream changes little from layer to layer, so most of it comes true; a wrong guess costs a read
// that the disk had time for, and never a bit of the result.
//
// Thread role: the control thread. Ownership: its scratch. Allocates nothing after construction. Errors: the source's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "model/config.h"
#include "model/matmul.h"
#include "model/router.h"
#include "model/weights.h"

namespace stoke::model {

class ExpertGuess {
 public:
  ExpertGuess(const Config& config, const Weights& weights, Multiplier& multiplier);
  static size_t bytes(const Config& config) { return Router::bytes(config, 1); }

  // After the experts of `layer` were expected. x: its FFN's input, one token; of several nothing is guessed.
  Status guess(int layer, const kernels::ActView& x);

 private:
  void tell(const LayerWeights& weights);

  const Config& config_;
  const Weights& weights_;
  Multiplier& multiplier_;
  Router router_;
};

}  // namespace stoke::model
