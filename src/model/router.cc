#include "model/router.h"

#include <algorithm>

namespace stoke::model {

Router::Router(const Config& config, Multiplier& multiplier, int64_t max_tokens)
    : config_(config), multiplier_(multiplier), scratch_(bytes(config, max_tokens)) {
  ScratchLayout at(scratch_.data());
  buffers_ = layout(at, config, max_tokens);
}

size_t Router::bytes(const Config& config, int64_t max_tokens) {
  ScratchLayout count;
  layout(count, config, max_tokens);
  return count.bytes();
}

Router::Buffers Router::layout(ScratchLayout& at, const Config& config, int64_t max_tokens) {
  Buffers b;
  const MoeConfig& moe = config.moe;
  if (moe.experts == 0) return b;
  b.logits = at.take<float>(max_tokens * moe.experts);
  b.chosen = at.take<int32_t>(max_tokens * moe.used);
  b.weights = at.take<float>(max_tokens * moe.used);
  b.uses = at.take<ExpertUse>(max_tokens * moe.used);
  b.starts = at.take<int64_t>(moe.experts + 1);
  return b;
}

// Chooses each token's experts and their weights.
Status Router::route(const MoeWeights& w, const kernels::ActView& x) {
  STOKE_TRY(multiplier_.run({.w = w.router,
                             .x = x,
                             .y = buffers_.logits,
                             .y_stride = config_.moe.experts,
                             .bias = w.router_bias.empty() ? nullptr : w.router_bias.data()}));
  multiplier_.threads().parallel_for(x.tokens, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) choose(t);
  });
  sort_uses(x.tokens);
  return ok_status();
}

// The `used` experts with the highest logits (the lower number where equal), in ascending number.
void Router::choose(int64_t token) {
  const MoeConfig& moe = config_.moe;
  float* logits = buffers_.logits + token * moe.experts;
  int32_t* chosen = buffers_.chosen + token * moe.used;
  float* weights = buffers_.weights + token * moe.used;
  int count = 0;
  for (int32_t e = 0; e < moe.experts; ++e) {
    int at = count;
    while (at > 0 && logits[e] > logits[chosen[at - 1]]) --at;
    if (at == moe.used) continue;
    count = std::min(count + 1, moe.used);
    std::copy_backward(chosen + at, chosen + count - 1, chosen + count);
    chosen[at] = e;
  }
  std::sort(chosen, chosen + moe.used);
  if (moe.softmax_first) multiplier_.kernels().softmax(logits, moe.experts);
  for (int i = 0; i < moe.used; ++i) weights[i] = logits[chosen[i]];
  if (!moe.softmax_first) multiplier_.kernels().softmax(weights, moe.used);
  if (!moe.normalize) return;
  float sum = 0;
  for (int i = 0; i < moe.used; ++i) sum += weights[i];
  for (int i = 0; i < moe.used; ++i) weights[i] /= sum;
}

// By expert, then token: a counting sort.
void Router::sort_uses(int64_t tokens) {
  const MoeConfig& moe = config_.moe;
  int64_t* starts = buffers_.starts;
  std::fill_n(starts, moe.experts + 1, int64_t{0});
  for (int64_t i = 0; i < tokens * moe.used; ++i) ++starts[buffers_.chosen[i] + 1];
  for (int e = 0; e < moe.experts; ++e) starts[e + 1] += starts[e];
  for (int64_t i = 0; i < tokens * moe.used; ++i) {
    const int32_t expert = buffers_.chosen[i];
    buffers_.uses[starts[expert]++] = {expert, static_cast<int32_t>(i / moe.used), buffers_.weights[i]};
  }
}

}  // namespace stoke::model
