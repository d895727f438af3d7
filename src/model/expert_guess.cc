#include "model/expert_guess.h"

namespace stoke::model {

ExpertGuess::ExpertGuess(const Config& config, const Weights& weights, Multiplier& multiplier)
    : config_(config), weights_(weights), multiplier_(multiplier), router_(config, multiplier, 1) {}

Status ExpertGuess::guess(int layer, const kernels::ActView& x) {
  if (x.tokens != 1 || layer + 1 >= config_.layers) return ok_status();
  const LayerWeights& next = weights_.layers[static_cast<size_t>(layer) + 1];
  if (!next.moe.router.valid() || !multiplier_.source().guesses(next.moe.router)) return ok_status();
  if (x.q == nullptr && multiplier_.wants_quantized(std::span(&next.moe.router, 1))) return ok_status();
  STOKE_TRY(router_.route(next.moe, x));
  tell(next);
  return ok_status();
}

// In the order of use: gates and ups of all, then downs. Of a neuron store the gates alone; records are found by them.
void ExpertGuess::tell(const LayerWeights& w) {
  WeightSource& source = multiplier_.source();
  const ExpertUse* uses = router_.uses();
  const int64_t used = config_.moe.used;
  source.begin_guess();
  for (int64_t i = 0; i < used; ++i) {
    const int64_t e = uses[i].expert;
    if (w.sparse.valid()) {
      if (w.sparse.gates.valid()) source.guess({.w = w.sparse.gates.expert(e), .up = {}});
    } else {
      source.guess({.w = w.moe.gate.expert(e), .up = w.moe.up.expert(e)});
    }
  }
  for (int64_t i = 0; i < used && !w.sparse.valid(); ++i) {
    source.guess({.w = w.moe.down.expert(uses[i].expert), .up = {}});
  }
}

}  // namespace stoke::model
