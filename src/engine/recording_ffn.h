// An FFN that counts which neurons' gates fire and leaves the computing to another.
//
// The gates are multiplied once more for it, which costs a third of an FFN; what the other gives is not touched. Where
// weights stream, gates are read twice. Thread role: the control thread; products are split over the pool. Ownership:
// the inner FFN and its own scratch; counts are the caller's, sized as the model. Errors: the weight source's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "formats/firing_stats.h"
#include "model/ffn.h"
#include "model/matmul.h"
#include "model/router.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace stoke::engine {

class RecordingFfn final : public model::Ffn {
 public:
  // Requires: every layer's gate is a matrix (not a part of records); no shared expert counts.
  struct Parts {
    const model::Config& config;
    const model::Weights& weights;
    model::Multiplier& multiplier;
    std::span<formats::LayerFiring> counts;  // (layers)
  };
  RecordingFfn(const Parts& parts, std::unique_ptr<model::Ffn> inner, int64_t max_tokens);
  // Without the inner one's.
  static size_t bytes(const model::Config& config, int64_t max_tokens);

  void prepare(int layer) override { inner_->prepare(layer); }
  Status forward(int layer, const float* x, int64_t tokens, float* out) override;
  void discard_scratch() override;

 private:
  struct Buffers {
    std::byte* acts = nullptr;        // of the batch
    std::byte* group_acts = nullptr;  // of one expert's tokens
    float* x = nullptr;               // (max_tokens, dim): one expert's tokens
    float* gate = nullptr;            // (max_tokens, kRows)
  };
  static Buffers layout(model::ScratchLayout& at, const model::Config& config, int64_t max_tokens);
  Status record(size_t layer, const float* x, int64_t tokens);
  Status record_experts(size_t layer, const kernels::ActView& x);
  Status count(const model::MatrixSlice& gate, const float* bias, const kernels::ActView& x, uint32_t* fired);

  const model::Config& config_;
  const model::Weights& weights_;
  model::Multiplier& multiplier_;
  std::span<formats::LayerFiring> counts_;
  std::unique_ptr<model::Ffn> inner_;
  model::Scratch scratch_;
  Buffers buffers_;
  model::Router router_;
};

}  // namespace stoke::engine
