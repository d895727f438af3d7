// Which experts each token takes, and with what weight.
//
// The `used` experts with the highest logits (the lower number where equal). Uses come sorted by expert, then token, so
// that an expert's weights serve all the tokens that chose it, and a token adds its experts in ascending number.
// Thread role: the control thread; choosing is split over the pool. Allocates nothing after construction.
// Errors: what the weight source says.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "model/config.h"
#include "model/matmul.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace stoke::model {

// One token's use of one expert.
struct ExpertUse {
  int32_t expert = 0;
  int32_t token = 0;
  float weight = 0;
};

// Told what each layer of each pass uses; for measurements.
class RouteObserver {
 public:
  virtual ~RouteObserver() = default;
  // uses: by expert, then token. The control thread.
  virtual Status chose(int layer, int64_t tokens, std::span<const ExpertUse> uses) = 0;
};

class Router {
 public:
  Router(const Config& config, Multiplier& multiplier, int64_t max_tokens);
  static size_t bytes(const Config& config, int64_t max_tokens);

  // Chooses for all tokens of x, which is quantised where the router's matrix wants that.
  Status route(const MoeWeights& weights, const kernels::ActView& x);
  // (tokens * used) of the last batch, by expert, then token.
  const ExpertUse* uses() const { return buffers_.uses; }
  void discard_scratch() { scratch_.discard(); }

 private:
  struct Buffers {
    float* logits = nullptr;    // (max_tokens, experts); then probabilities
    int32_t* chosen = nullptr;  // (max_tokens, used), ascending for each token
    float* weights = nullptr;   // (max_tokens, used)
    ExpertUse* uses = nullptr;  // (max_tokens * used)
    int64_t* starts = nullptr;  // (experts + 1)
  };
  static Buffers layout(ScratchLayout& at, const Config& config, int64_t max_tokens);
  void choose(int64_t token);
  void sort_uses(int64_t tokens);

  const Config& config_;
  Multiplier& multiplier_;
  Scratch scratch_;
  Buffers buffers_;
};

}  // namespace stoke::model
