#include "model/ffn.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace stoke::model {
namespace {

// Groups whose inner activations one worker quantises at once.
constexpr int64_t kGroupGrain = 4;

Gating gating_of(const Config& config) {
  return {.activation = config.activation, .alpha = config.swiglu_alpha, .limit = config.swiglu_limit};
}

const float* or_null(const Vector& v) { return v.empty() ? nullptr : v.data(); }

int64_t act_bytes(int64_t tokens, int64_t k) {
  constexpr auto kAlign = static_cast<int64_t>(kScratchAlignment);
  return (static_cast<int64_t>(kernels::act_bytes(tokens, k)) + kAlign - 1) / kAlign * kAlign;
}

int64_t dense_inner(const Config& config) {
  const bool any = std::any_of(config.layer.begin(), config.layer.end(), [](const LayerConfig& l) { return !l.moe; });
  return any ? config.ffn : 0;
}

}  // namespace

DenseFfn::DenseFfn(const Config& config, Multiplier& multiplier, int64_t inner, int64_t max_tokens)
    : config_(config), multiplier_(multiplier), scratch_(bytes(config.dim, inner, max_tokens)) {
  ScratchLayout at(scratch_.data());
  buffers_ = layout(at, config.dim, inner, max_tokens);
}

size_t DenseFfn::bytes(int64_t dim, int64_t inner, int64_t max_tokens) {
  ScratchLayout count;
  layout(count, dim, inner, max_tokens);
  return count.bytes();
}

DenseFfn::Buffers DenseFfn::layout(ScratchLayout& at, int64_t dim, int64_t inner, int64_t max_tokens) {
  Buffers b;
  if (inner == 0) return b;
  b.hidden = at.take<float>(max_tokens * inner);
  b.acts = at.take<std::byte>(act_bytes(max_tokens, std::max(dim, inner)));
  return b;
}

Status DenseFfn::forward(const DenseFfnWeights& w, const float* x, int64_t tokens, float* out) {
  const int64_t inner = w.gate.rows.size();
  const std::array<MatrixSlice, 2> gate_up = {w.gate, w.up};
  const kernels::ActView acts =
      Multiplier::view(x, tokens, config_.dim, buffers_.acts, multiplier_.wants_quantized(gate_up));
  multiplier_.quantize(acts);
  const Product gated = {.w = w.gate,
                         .x = acts,
                         .y = buffers_.hidden,
                         .y_stride = inner,
                         .bias = or_null(w.gate_bias),
                         .up = w.up,
                         .up_bias = or_null(w.up_bias)};
  STOKE_TRY(multiplier_.run(std::span(&gated, 1), gating_of(config_)));

  const kernels::ActView hidden = Multiplier::view(buffers_.hidden, tokens, inner, buffers_.acts,
                                                   multiplier_.wants_quantized(std::span(&w.down, 1)));
  multiplier_.quantize(hidden);
  return multiplier_.run({.w = w.down, .x = hidden, .y = out, .y_stride = config_.dim, .bias = or_null(w.down_bias)});
}

MoeFfn::MoeFfn(const Config& config, const Weights& weights, Multiplier& multiplier, int64_t max_tokens)
    : config_(config),
      weights_(weights),
      multiplier_(multiplier),
      rows_(wave_rows(config, max_tokens)),
      scratch_(buffer_bytes(config, max_tokens)),
      router_(config, multiplier, max_tokens),
      guess_(config, weights, multiplier),
      shared_(config, multiplier, config.moe.shared_ffn, max_tokens) {
  ScratchLayout at(scratch_.data());
  buffers_ = layout(at, config, max_tokens);
}

size_t MoeFfn::buffer_bytes(const Config& config, int64_t max_tokens) {
  ScratchLayout count;
  layout(count, config, max_tokens);
  return count.bytes();
}

size_t MoeFfn::bytes(const Config& config, int64_t max_tokens) {
  return buffer_bytes(config, max_tokens) + Router::bytes(config, max_tokens) + ExpertGuess::bytes(config) +
         DenseFfn::bytes(config.dim, config.moe.shared_ffn, max_tokens);
}

// A wave holds one batch's worth of rows: every use of one token at least.
int64_t MoeFfn::wave_rows(const Config& config, int64_t max_tokens) {
  return std::max<int64_t>(max_tokens, config.moe.used);
}

MoeFfn::Buffers MoeFfn::layout(ScratchLayout& at, const Config& config, int64_t max_tokens) {
  Buffers b;
  const MoeConfig& moe = config.moe;
  if (moe.experts == 0) return b;
  const int64_t rows = wave_rows(config, max_tokens);
  b.groups = at.take<Group>(rows);
  b.products = at.take<Product>(rows);
  b.x = at.take<float>(rows * config.dim);
  b.hidden = at.take<float>(rows * moe.ffn);
  b.y = at.take<float>(std::max(rows, max_tokens) * config.dim);
  b.shared_gate = at.take<float>(max_tokens);
  b.token_acts = at.take<std::byte>(act_bytes(max_tokens, config.dim));
  // Twice what full tiles need: groups of a few tokens are padded to a tile each.
  b.acts_bytes = 2 * act_bytes(rows + kernels::kTokenTile, std::max(config.dim, moe.ffn));
  b.acts = at.take<std::byte>(b.acts_bytes);
  return b;
}

Status MoeFfn::forward(int layer, const float* x, int64_t tokens, float* out) {
  const MoeWeights& w = weights_.layers[static_cast<size_t>(layer)].moe;
  const kernels::ActView acts = Multiplier::view(x, tokens, config_.dim, buffers_.token_acts, wants_quantized(w));
  multiplier_.quantize(acts);
  STOKE_TRY(router_.route(w, acts));
  expect(w, tokens);
  STOKE_TRY(guess_.guess(layer, acts));
  std::fill_n(out, tokens * config_.dim, 0.0f);
  const int64_t all = tokens * config_.moe.used;
  if (observer_ != nullptr) STOKE_TRY(observer_->chose(layer, tokens, {router_.uses(), static_cast<size_t>(all)}));
  for (int64_t begin = 0; begin < all;) {
    int64_t groups = 0;
    const int64_t end = cut_wave(begin, all, &groups);
    STOKE_TRY(run_wave(w, acts, begin, groups));
    add_wave(begin, end, tokens, out);
    begin = end;
  }
  return w.shared.gate.valid() ? add_shared(w, acts, out) : ok_status();
}

bool MoeFfn::wants_quantized(const MoeWeights& w) const {
  const std::array<MatrixSlice, 4> all = {w.router, w.gate.expert(0), w.up.expert(0), w.shared_gate};
  return multiplier_.wants_quantized(all);
}

// Tells the source which experts come, in the order of use: wave after wave, gates and ups before downs, so that downs
// are read while gates and ups compute.
void MoeFfn::expect(const MoeWeights& w, int64_t tokens) {
  const int64_t all = tokens * config_.moe.used;
  for (int64_t begin = 0; begin < all;) {
    int64_t groups = 0;
    begin = cut_wave(begin, all, &groups);
    for (const bool down : {false, true}) {
      for (int64_t i = 0; i < groups; ++i) {
        const int64_t e = buffers_.groups[i].expert;
        const ExpectedProduct product = down ? ExpectedProduct{.w = w.down.expert(e), .up = {}}
                                             : ExpectedProduct{.w = w.gate.expert(e), .up = w.up.expert(e)};
        multiplier_.source().expect(std::span(&product, 1));
      }
    }
  }
}

int64_t MoeFfn::cut_wave(int64_t begin, int64_t all, int64_t* groups) const {
  const ExpertUse* uses = router_.uses();
  const int64_t width = std::max(config_.dim, config_.moe.ffn);
  int64_t bytes = 0;
  int64_t at = begin;
  *groups = 0;
  while (at < all && at - begin < rows_) {
    int64_t end = at + 1;
    while (end < all && end - begin < rows_ && uses[end].expert == uses[at].expert) ++end;
    const int64_t more = act_bytes(end - at, width);
    if (*groups > 0 && bytes + more > buffers_.acts_bytes) break;
    buffers_.groups[(*groups)++] = {
        .expert = uses[at].expert, .first = at - begin, .count = end - at, .acts = buffers_.acts + bytes};
    bytes += more;
    at = end;
  }
  return at;
}

// Copies and quantises the inputs of each group. A single token's are at hand already.
void MoeFfn::gather(const kernels::ActView& x, int64_t begin, int64_t groups) {
  multiplier_.threads().parallel_for(groups, 1, [&](int64_t g0, int64_t g1, int) {
    for (int64_t i = g0; i < g1; ++i) {
      Group& group = buffers_.groups[i];
      float* rows = buffers_.x + group.first * config_.dim;
      for (int64_t r = 0; r < group.count; ++r) {
        const int32_t token = router_.uses()[begin + group.first + r].token;
        std::copy_n(x.f + token * x.f_stride, config_.dim, rows + r * config_.dim);
      }
      group.x = Multiplier::view(rows, group.count, config_.dim, group.acts, x.q != nullptr);
      if (x.q != nullptr) multiplier_.kernels().quantize_acts(group.x, 0, group.count);
    }
  });
}

Status MoeFfn::run_wave(const MoeWeights& w, const kernels::ActView& x, int64_t begin, int64_t groups) {
  const int64_t inner = config_.moe.ffn;
  if (x.tokens > 1) gather(x, begin, groups);
  for (int64_t i = 0; i < groups; ++i) {
    Group& group = buffers_.groups[i];
    const int64_t e = group.expert;
    buffers_.products[i] = {.w = w.gate.expert(e),
                            .x = x.tokens > 1 ? group.x : x,
                            .y = buffers_.hidden + group.first * inner,
                            .y_stride = inner,
                            .bias = w.gate_bias.empty() ? nullptr : w.gate_bias.data() + e * inner,
                            .up = w.up.expert(e),
                            .up_bias = w.up_bias.empty() ? nullptr : w.up_bias.data() + e * inner};
  }
  STOKE_TRY(run_products(groups, gating_of(config_)));

  const MatrixSlice any_down = w.down.expert(0);
  const bool quantized = multiplier_.wants_quantized(std::span(&any_down, 1));
  multiplier_.threads().parallel_for(groups, kGroupGrain, [&](int64_t g0, int64_t g1, int) {
    for (int64_t i = g0; i < g1; ++i) {
      Group& group = buffers_.groups[i];
      group.x = Multiplier::view(buffers_.hidden + group.first * inner, group.count, inner, group.acts, quantized);
      if (quantized) multiplier_.kernels().quantize_acts(group.x, 0, group.count);
    }
  });
  for (int64_t i = 0; i < groups; ++i) {
    const Group& group = buffers_.groups[i];
    const int64_t e = group.expert;
    buffers_.products[i] = {.w = w.down.expert(e),
                            .x = group.x,
                            .y = buffers_.y + group.first * config_.dim,
                            .y_stride = config_.dim,
                            .bias = w.down_bias.empty() ? nullptr : w.down_bias.data() + e * config_.dim};
  }
  return run_products(groups, Gating());
}

// What is in memory first, while the rest is read in its order; each product has its own output.
Status MoeFfn::run_products(int64_t count, const Gating& gating) {
  const std::span products(buffers_.products, static_cast<size_t>(count));
  const WeightSource& source = multiplier_.source();
  const auto at_hand = [&](const MatrixSlice& slice) {
    return !slice.valid() || source.at_hand(slice.id, slice.rows.begin);
  };
  auto next = products.begin();
  for (auto p = products.begin(); p != products.end(); ++p) {
    if (at_hand(p->w) && at_hand(p->up)) std::rotate(next++, p, p + 1);
  }
  return multiplier_.run(products, gating);
}

// Each token takes its experts' outputs in ascending number: waves come in that order, and so do the uses within one.
void MoeFfn::add_wave(int64_t begin, int64_t end, int64_t tokens, float* out) {
  multiplier_.threads().parallel_for(tokens, kernels::kTokenTile, [&](int64_t t0, int64_t t1, int) {
    for (int64_t i = begin; i < end; ++i) {
      const ExpertUse& use = router_.uses()[i];
      if (use.token < t0 || use.token >= t1) continue;
      multiplier_.kernels().axpy(out + use.token * config_.dim, buffers_.y + (i - begin) * config_.dim, use.weight,
                                 config_.dim);
    }
  });
}

Status MoeFfn::add_shared(const MoeWeights& w, const kernels::ActView& x, float* out) {
  STOKE_TRY(shared_.forward(w.shared, x.f, x.tokens, buffers_.y));
  std::fill_n(buffers_.shared_gate, x.tokens, 1.0f);
  if (w.shared_gate.valid()) {
    STOKE_TRY(multiplier_.run({.w = w.shared_gate, .x = x, .y = buffers_.shared_gate, .y_stride = 1}));
    for (int64_t t = 0; t < x.tokens; ++t) {
      buffers_.shared_gate[t] = 1.0f / (1.0f + std::exp(-buffers_.shared_gate[t]));
    }
  }
  multiplier_.threads().parallel_for(x.tokens, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      multiplier_.kernels().axpy(out + t * config_.dim, buffers_.y + t * config_.dim, buffers_.shared_gate[t],
                                 config_.dim);
    }
  });
  return ok_status();
}

FullFfn::FullFfn(const Config& config, const Weights& weights, Multiplier& multiplier, int64_t max_tokens)
    : config_(config),
      weights_(weights),
      dense_(config, multiplier, dense_inner(config), max_tokens),
      moe_(config, weights, multiplier, max_tokens) {}

size_t FullFfn::bytes(const Config& config, int64_t max_tokens) {
  return DenseFfn::bytes(config.dim, dense_inner(config), max_tokens) + MoeFfn::bytes(config, max_tokens);
}

Status FullFfn::forward(int layer, const float* x, int64_t tokens, float* out) {
  const auto at = static_cast<size_t>(layer);
  if (config_.layer[at].moe) return moe_.forward(layer, x, tokens, out);
  return dense_.forward(weights_.layers[at].ffn, x, tokens, out);
}

void MoeFfn::discard_scratch() {
  scratch_.discard();
  router_.discard_scratch();
  shared_.discard_scratch();
}

void FullFfn::discard_scratch() {
  dense_.discard_scratch();
  moe_.discard_scratch();
}

}  // namespace stoke::model
