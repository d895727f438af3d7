// The feed-forward part of a layer, behind one interface: how its weights come, and which of its neurons are computed,
// is invisible to the transformer.
//
// FullFfn computes every neuron from leased weights: dense layers, and expert layers where a router chooses. Experts'
// outputs are added in ascending expert number, the shared expert last, so that a token's bits do not depend on its
// batch. Tokens are grouped by expert, so that each expert's weights are read once for all the tokens that chose it.
// Thread role: the control thread; work is split over the pool. Allocates nothing after construction.
// Errors: what the weight source says.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "model/config.h"
#include "model/expert_guess.h"
#include "model/matmul.h"
#include "model/router.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace stoke::model {

class Ffn {
 public:
  virtual ~Ffn() = default;
  // Tells that `layer` comes next; its attention is about to run.
  virtual void prepare(int layer) = 0;
  // x, out: (tokens, dim); x has had its norm and is left unchanged, out is overwritten.
  virtual Status forward(int layer, const float* x, int64_t tokens, float* out) = 0;
  // Between passes: gives the pages of working memory back. Those that the next pass needs come again.
  virtual void discard_scratch() = 0;
};

// One dense network, used for dense layers and for the shared expert.
class DenseFfn {
 public:
  // inner: the largest inner size that will be asked for. The references outlive the object.
  DenseFfn(const Config& config, Multiplier& multiplier, int64_t inner, int64_t max_tokens);
  static size_t bytes(int64_t dim, int64_t inner, int64_t max_tokens);

  // out (tokens, dim) = down(act(gate x) * up x).
  Status forward(const DenseFfnWeights& weights, const float* x, int64_t tokens, float* out);
  void discard_scratch() { scratch_.discard(); }

 private:
  struct Buffers {
    float* hidden = nullptr;    // (max_tokens, inner)
    std::byte* acts = nullptr;  // kernels::act_bytes of the wider of dim and inner
  };
  static Buffers layout(ScratchLayout& at, int64_t dim, int64_t inner, int64_t max_tokens);

  const Config& config_;
  Multiplier& multiplier_;
  Scratch scratch_;
  Buffers buffers_;
};

class MoeFfn {
 public:
  MoeFfn(const Config& config, const Weights& weights, Multiplier& multiplier, int64_t max_tokens);
  static size_t bytes(const Config& config, int64_t max_tokens);

  Status forward(int layer, const float* x, int64_t tokens, float* out);
  void discard_scratch();
  // Outlives the passes that follow; null: nobody watches.
  void observe(RouteObserver* observer) { observer_ = observer; }

 private:
  // Consecutive uses of one expert inside a wave.
  struct Group {
    int32_t expert = 0;
    int64_t first = 0;  // row in the wave's buffers
    int64_t count = 0;
    std::byte* acts = nullptr;  // room for its quantised activations
    kernels::ActView x;         // the experts' inputs, then their inner activations
  };
  struct Buffers {
    Group* groups = nullptr;          // (rows)
    Product* products = nullptr;      // (rows)
    float* x = nullptr;               // (rows, dim): inputs gathered by expert
    float* hidden = nullptr;          // (rows, expert ffn)
    float* y = nullptr;               // (rows, dim); then the shared expert's output
    float* shared_gate = nullptr;     // (max_tokens)
    std::byte* token_acts = nullptr;  // of the batch's tokens
    std::byte* acts = nullptr;        // of a wave's groups
    int64_t acts_bytes = 0;
  };
  static int64_t wave_rows(const Config& config, int64_t max_tokens);
  static Buffers layout(ScratchLayout& at, const Config& config, int64_t max_tokens);
  static size_t buffer_bytes(const Config& config, int64_t max_tokens);

  bool wants_quantized(const MoeWeights& weights) const;
  void expect(const MoeWeights& weights, int64_t tokens);
  // Cuts the next wave from uses [begin, all): as many as the buffers hold. Returns where it ends.
  int64_t cut_wave(int64_t begin, int64_t all, int64_t* groups) const;
  void gather(const kernels::ActView& x, int64_t begin, int64_t groups);
  Status run_wave(const MoeWeights& weights, const kernels::ActView& x, int64_t begin, int64_t groups);
  Status run_products(int64_t count, const Gating& gating);
  void add_wave(int64_t begin, int64_t end, int64_t tokens, float* out);
  Status add_shared(const MoeWeights& weights, const kernels::ActView& x, float* out);

  const Config& config_;
  const Weights& weights_;
  Multiplier& multiplier_;
  int64_t rows_;  // of a wave
  Scratch scratch_;
  Buffers buffers_;
  Router router_;
  ExpertGuess guess_;
  DenseFfn shared_;
  RouteObserver* observer_ = nullptr;
};

class FullFfn final : public Ffn {
 public:
  FullFfn(const Config& config, const Weights& weights, Multiplier& multiplier, int64_t max_tokens);
  static size_t bytes(const Config& config, int64_t max_tokens);

  void prepare(int /*layer*/) override {}
  Status forward(int layer, const float* x, int64_t tokens, float* out) override;
  void discard_scratch() override;
  void observe(RouteObserver* observer) { moe_.observe(observer); }

 private:
  const Config& config_;
  const Weights& weights_;
  DenseFfn dense_;
  MoeFfn moe_;
};

}  // namespace stoke::model
