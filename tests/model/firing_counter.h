// Counts which neurons fire and which experts are chosen while a model runs, for tests and bench/firing.cc.
//
// Two doors of the forward pass tell: the weight source says which rows of a gate matrix come next (so which expert),
// and the activation kernels see the gate's and up's values, in the same order where one thread computes one token.
// Thread role: one thread, one counter at a time (kernels are plain functions, so the counter in use is a static).
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model_loader.h"
#include "formats/model_file.h"
#include "kernels/kernels.h"
#include "kv/kv_pool.h"
#include "model/transformer.h"
#include "sys/thread_pool.h"
#include "tests/model/memory_source.h"

namespace stoke::test {

// What was counted in one layer. Neurons of experts lie one expert after another.
struct LayerCounts {
  std::vector<int64_t> fired;     // (neurons): tokens for which the gate was > 0
  std::vector<int64_t> used;      // (experts; 1 where dense): tokens that computed it
  int64_t computed = 0;           // neurons, over all tokens
  int64_t gates = 0;              // of them: gate > 0
  int64_t ups = 0;                // of them: up > 0
  int64_t both = 0;               // of them: both
  int64_t gates_again = 0;        // of gates: fired for the token before, too (all but the first token)
  int64_t gates_after_first = 0;  // gates of all tokens but the first
  int64_t experts_again = 0;      // uses of experts that the token before used, too
  int64_t experts_after_first = 0;
  std::vector<char> now, before;            // (neurons): fired for this token, the one before
  std::vector<char> used_now, used_before;  // (experts)
};

class FiringCounter final : public model::WeightSource {
 public:
  static Result<std::unique_ptr<FiringCounter>> open(const std::string& path, int64_t context) {
    auto out = std::unique_ptr<FiringCounter>(new FiringCounter());
    STOKE_ASSIGN(out->file_, formats::open_model_file(path));
    STOKE_ASSIGN(out->plan_, engine::plan_model(out->file_, {}));
    STOKE_ASSIGN(out->bytes_, MemorySource::load(out->file_, out->plan_.plan));
    const model::Config& c = out->plan_.config;
    STOKE_ASSIGN(out->pool_, kv::KvPool::create({.layers = c.layers,
                                                 .kv_heads = c.kv_heads,
                                                 .head_dim = c.head_dim,
                                                 .max_context = context,
                                                 .pages = context / kv::kPageTokens + 1}));
    out->kernels_ = kernels::best();
    out->kernels_.relu_mul = count_relu;
    out->kernels_.drelu_mul = count_drelu;
    out->make_layers();
    out->transformer_ = std::make_unique<model::Transformer>(
        model::Transformer::Parts{c, out->plan_.weights, *out, *out->pool_, out->kernels_, out->threads_},
        model::TransformerOptions{.max_batch = 1, .max_context = context});
    out->seq_ = out->pool_->create_sequence();
    return out;
  }

  // Computes the next token; returns the one that the model thinks likeliest after it.
  int32_t feed(int32_t token) {
    current() = this;
    CHECK(pool_->reserve(seq_, 1).ok());
    const model::SequenceRun run = {seq_, 0, 1, pool_->length(seq_)};
    const int64_t output = 0;
    CHECK(transformer_->forward({std::span(&token, 1), std::span(&run, 1), std::span(&output, 1)}).ok());
    pool_->commit(seq_, 1);
    end_token();
    std::vector<float> logits(static_cast<size_t>(config().vocab));
    CHECK(transformer_->logits(0, 1, logits.data()).ok());
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }

  const model::Config& config() const { return plan_.config; }
  const std::vector<LayerCounts>& layers() const { return layers_; }

  // The byte door: passes everything on, and notes whose gate rows come next.
  const model::MatrixInfo& matrix(model::MatrixId id) const override { return bytes_->matrix(id); }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    Result<RowsView> view = bytes_->acquire(id, wanted);
    const auto layer = static_cast<size_t>(gate_layer_[static_cast<size_t>(id.index)]);
    if (view.ok() && layer < layers_.size()) note(layer, view->rows);
    return view;
  }
  void release(model::MatrixId id, const RowsView& rows) override { bytes_->release(id, rows); }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override { return bytes_->read_row(id, row, dst); }

 private:
  struct Rows {
    size_t layer = 0;
    int64_t begin = 0, end = 0;
  };

  FiringCounter() : threads_(1) {}

  static FiringCounter*& current() {
    static FiringCounter* counter = nullptr;
    return counter;
  }
  static void count_relu(float* gate, const float* up, int64_t n) {
    current()->count(gate, up, n);
    kernels::best().relu_mul(gate, up, n);
  }
  static void count_drelu(float* gate, const float* up, int64_t n) {
    current()->count(gate, up, n);
    kernels::best().drelu_mul(gate, up, n);
  }

  void make_layers() {
    gate_layer_.assign(plan_.plan.matrices.size(), -1);
    layers_.resize(plan_.weights.layers.size());
    for (size_t i = 0; i < layers_.size(); ++i) {
      const model::LayerWeights& w = plan_.weights.layers[i];
      const bool moe = w.moe.router.valid();
      const model::MatrixId gate = moe ? w.moe.gate.id : w.ffn.gate.id;
      gate_layer_[static_cast<size_t>(gate.index)] = static_cast<int32_t>(i);
      const auto experts = static_cast<size_t>(moe ? config().moe.experts : 1);
      rows_ = moe ? w.moe.gate.rows : w.ffn.gate.rows.size();
      const size_t neurons = experts * static_cast<size_t>(rows_);
      LayerCounts& counts = layers_[i];
      counts.fired.resize(neurons);
      counts.now.resize(neurons);
      counts.before.resize(neurons);
      counts.used.resize(experts);
      counts.used_now.resize(experts);
      counts.used_before.resize(experts);
    }
  }

  void note(size_t layer, RowRange rows) {
    pending_.push_back({layer, rows.begin, rows.end});
    layers_[layer].used_now[static_cast<size_t>(rows.begin / rows_)] = 1;
  }

  void count(const float* gate, const float* up, int64_t n) {
    CHECK(!pending_.empty());
    Rows& rows = pending_.front();
    CHECK(rows.begin + n <= rows.end);
    LayerCounts& counts = layers_[rows.layer];
    counts.computed += n;
    for (int64_t i = 0; i < n; ++i) {
      const auto neuron = static_cast<size_t>(rows.begin + i);
      counts.ups += up[i] > 0;
      if (!(gate[i] > 0)) continue;
      ++counts.gates;
      ++counts.fired[neuron];
      counts.both += up[i] > 0;
      counts.gates_again += counts.before[neuron];
      counts.now[neuron] = 1;
    }
    rows.begin += n;
    if (rows.begin == rows.end) pending_.pop_front();
  }

  void end_token() {
    for (LayerCounts& counts : layers_) {
      for (size_t e = 0; e < counts.used.size(); ++e) {
        counts.used[e] += counts.used_now[e];
        if (tokens_ > 0) counts.experts_after_first += counts.used_now[e];
        counts.experts_again += counts.used_now[e] && counts.used_before[e];
      }
      if (tokens_ > 0) counts.gates_after_first += std::count(counts.now.begin(), counts.now.end(), 1);
      std::swap(counts.now, counts.before);
      std::swap(counts.used_now, counts.used_before);
      std::fill(counts.now.begin(), counts.now.end(), 0);
      std::fill(counts.used_now.begin(), counts.used_now.end(), 0);
    }
    pending_.clear();  // models without a ReLU count no neurons
    ++tokens_;
  }

  formats::ModelFile file_;
  engine::ModelPlan plan_;
  std::unique_ptr<MemorySource> bytes_;
  std::unique_ptr<kv::KvPool> pool_;
  sys::ThreadPool threads_;
  kernels::Kernels kernels_ = {};
  std::unique_ptr<model::Transformer> transformer_;
  kv::SeqId seq_ = {};
  std::vector<int32_t> gate_layer_;  // by matrix: the layer whose gate it is, or -1
  std::vector<LayerCounts> layers_;
  int64_t rows_ = 0;  // of a gate, or of one expert's
  std::deque<Rows> pending_;
  int64_t tokens_ = 0;
};

// Share of the sum that falls to the largest `part` of the values.
inline double top_share(std::vector<int64_t> values, double part) {
  std::sort(values.begin(), values.end(), std::greater<>());
  double top = 0, all = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    all += static_cast<double>(values[i]);
    if (static_cast<double>(i) + 0.5 < part * static_cast<double>(values.size())) top += static_cast<double>(values[i]);
  }
  return all == 0 ? 0 : top / all;
}

// Sums over layers, as shares; what bench_firing prints and tests compare.
struct FiringShares {
  double gate = 0, up = 0, both = 0;   // of the computed neurons
  double gate_low = 1, gate_high = 0;  // layers
  double again = 0;                    // of firing neurons: fired for the token before
  double expert_again = 0;
  double top[4] = {0, 0, 0, 0};  // share of firings of the top 10, 25, 26, 50 % of a layer's neurons, mean of layers
  double expert_top[3] = {0, 0, 0};  // share of uses of the top 10, 25, 50 % of a layer's experts
};

inline FiringShares shares_of(const std::vector<LayerCounts>& layers) {
  FiringShares s;
  double gates = 0, computed = 0, ups = 0, both = 0, again = 0, after = 0, uses_again = 0, uses_after = 0;
  const auto count = static_cast<double>(layers.size());
  for (const LayerCounts& l : layers) {
    const double share = static_cast<double>(l.gates) / static_cast<double>(std::max<int64_t>(1, l.computed));
    s.gate_low = std::min(s.gate_low, share);
    s.gate_high = std::max(s.gate_high, share);
    gates += static_cast<double>(l.gates), computed += static_cast<double>(l.computed);
    ups += static_cast<double>(l.ups), both += static_cast<double>(l.both);
    again += static_cast<double>(l.gates_again), after += static_cast<double>(l.gates_after_first);
    uses_again += static_cast<double>(l.experts_again), uses_after += static_cast<double>(l.experts_after_first);
    const double tops[4] = {0.10, 0.25, 0.26, 0.50};
    for (int i = 0; i < 4; ++i) s.top[i] += top_share(l.fired, tops[i]) / count;
    const double expert_tops[3] = {0.10, 0.25, 0.50};
    for (int i = 0; i < 3; ++i) s.expert_top[i] += top_share(l.used, expert_tops[i]) / count;
  }
  computed = std::max(1.0, computed);
  s.gate = gates / computed, s.up = ups / computed, s.both = both / computed;
  s.again = again / std::max(1.0, after);
  s.expert_again = uses_again / std::max(1.0, uses_after);
  return s;
}

}  // namespace stoke::test
