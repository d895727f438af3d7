#include "engine/recording_ffn.h"

#include <algorithm>
#include <array>
#include <utility>

namespace stoke::engine {
namespace {

constexpr int64_t kRows = 1024;  // gates multiplied at a time

const float* or_null(const model::Vector& v, int64_t at) { return v.empty() ? nullptr : v.data() + at; }

}  // namespace

RecordingFfn::RecordingFfn(const Parts& parts, std::unique_ptr<model::Ffn> inner, int64_t max_tokens)
    : config_(parts.config),
      weights_(parts.weights),
      multiplier_(parts.multiplier),
      counts_(parts.counts),
      inner_(std::move(inner)),
      scratch_([&] {
        model::ScratchLayout count;
        layout(count, parts.config, max_tokens);
        return count.bytes();
      }()),
      router_(parts.config, parts.multiplier, max_tokens) {
  model::ScratchLayout at(scratch_.data());
  buffers_ = layout(at, config_, max_tokens);
}

size_t RecordingFfn::bytes(const model::Config& config, int64_t max_tokens) {
  model::ScratchLayout count;
  layout(count, config, max_tokens);
  return count.bytes() + model::Router::bytes(config, max_tokens);
}

RecordingFfn::Buffers RecordingFfn::layout(model::ScratchLayout& at, const model::Config& config, int64_t max_tokens) {
  Buffers b;
  const auto acts = static_cast<int64_t>(kernels::act_bytes(max_tokens, config.dim));
  b.acts = at.take<std::byte>(acts);
  b.group_acts = at.take<std::byte>(acts);
  b.x = at.take<float>(max_tokens * config.dim);
  b.gate = at.take<float>(max_tokens * kRows);
  return b;
}

Status RecordingFfn::forward(int layer, const float* x, int64_t tokens, float* out) {
  STOKE_TRY(record(static_cast<size_t>(layer), x, tokens));
  return inner_->forward(layer, x, tokens, out);
}

Status RecordingFfn::record(size_t layer, const float* x, int64_t tokens) {
  const model::LayerWeights& w = weights_.layers[layer];
  const bool moe = config_.layer[layer].moe;
  const model::MatrixSlice dense = w.sparse.valid() ? w.sparse.gate : w.ffn.gate;
  const model::ExpertSlices& gates = w.sparse.valid() ? w.sparse.gates : w.moe.gate;
  const std::array<model::MatrixSlice, 2> slices = {moe ? gates.expert(0) : dense, moe ? w.moe.router : dense};
  const kernels::ActView acts =
      model::Multiplier::view(x, tokens, config_.dim, buffers_.acts, multiplier_.wants_quantized(slices));
  multiplier_.quantize(acts);
  if (moe) return record_experts(layer, acts);
  counts_[layer].tokens[0] += tokens;
  return count(dense, or_null(w.ffn.gate_bias, 0), acts, counts_[layer].fired.data());
}

Status RecordingFfn::record_experts(size_t layer, const kernels::ActView& x) {
  const model::LayerWeights& w = weights_.layers[layer];
  const model::ExpertSlices& gates = w.sparse.valid() ? w.sparse.gates : w.moe.gate;
  STOKE_TRY(router_.route(w.moe, x));
  const model::ExpertUse* uses = router_.uses();
  const int64_t all = x.tokens * config_.moe.used;
  for (int64_t begin = 0; begin < all;) {
    const int64_t expert = uses[begin].expert;
    int64_t end = begin;
    for (; end < all && uses[end].expert == expert; ++end) {
      std::copy_n(x.f + uses[end].token * x.f_stride, config_.dim, buffers_.x + (end - begin) * config_.dim);
    }
    const kernels::ActView group =
        model::Multiplier::view(buffers_.x, end - begin, config_.dim, buffers_.group_acts, x.q != nullptr);
    multiplier_.quantize(group);
    counts_[layer].tokens[static_cast<size_t>(expert)] += end - begin;
    STOKE_TRY(count(gates.expert(expert), or_null(w.moe.gate_bias, expert * gates.rows), group,
                    counts_[layer].fired.data() + expert * gates.rows));
    begin = end;
  }
  return ok_status();
}

Status RecordingFfn::count(const model::MatrixSlice& gate, const float* bias, const kernels::ActView& x,
                           uint32_t* fired) {
  for (int64_t first = 0; first < gate.rows.size(); first += kRows) {
    const int64_t rows = std::min(kRows, gate.rows.size() - first);
    const int64_t begin = gate.rows.begin + first;
    STOKE_TRY(multiplier_.run({.w = {gate.id, {begin, begin + rows}},
                               .x = x,
                               .y = buffers_.gate,
                               .y_stride = kRows,
                               .bias = bias == nullptr ? nullptr : bias + first}));
    for (int64_t t = 0; t < x.tokens; ++t) {
      const float* values = buffers_.gate + t * kRows;
      for (int64_t i = 0; i < rows; ++i) fired[first + i] += config_.activation.passes(values[i]) ? 1 : 0;
    }
  }
  return ok_status();
}

void RecordingFfn::discard_scratch() {
  inner_->discard_scratch();
  scratch_.discard();
  router_.discard_scratch();
}

}  // namespace stoke::engine
