#include "pipeline/sparse_ffn.h"

#include <algorithm>

#include "base/check.h"

namespace stoke::pipeline {
namespace {

int64_t act_bytes(int64_t tokens, int64_t dim) {
  constexpr auto kAlign = static_cast<int64_t>(model::kScratchAlignment);
  return (static_cast<int64_t>(kernels::act_bytes(tokens, dim)) + kAlign - 1) / kAlign * kAlign;
}

const float* or_null(const model::Vector& v) { return v.empty() ? nullptr : v.data(); }

int64_t used_experts(const model::Config& config) { return std::max(config.moe.used, 1); }

}  // namespace

SparseFfn::SparseFfn(const Parts& parts, const SparseOptions& options)
    : config_(parts.config),
      weights_(parts.weights),
      multiplier_(parts.multiplier),
      tables_(parts.tables),
      queue_(parts.queue),
      firings_(parts.firings),
      options_(complete(parts, options)),
      math_(parts.multiplier.kernels(), parts.config.activation),
      scratch_([&] {
        model::ScratchLayout count;
        layout(count, parts, options_);
        return count.bytes();
      }()),
      router_(parts.config, parts.multiplier, options.max_tokens),
      guess_(parts.config, parts.weights, parts.multiplier),
      rest_(needs_rest(parts)
                ? std::make_unique<model::FullFfn>(parts.config, parts.weights, parts.multiplier, options.max_tokens)
                : nullptr),
      ring_(parts.tables, parts.cache, parts.queue, parts.multiplier.threads(), ring_options(options_)),
      decoder_({parts.multiplier, math_, parts.cache, parts.queue}, decoder_shape(parts, options_), options_.fetch,
               options_.switches),
      stream_(parts.multiplier, math_, ring_, options.max_tokens) {
  model::ScratchLayout at(scratch_.data());
  buffers_ = layout(at, parts, options_);
  groups_.resize(static_cast<size_t>(decoder_shape(parts, options_).groups));
  constexpr uint32_t kAlignmentMax = 4096;
  for (const NeuronTable& t : tables_) {
    CHECK(t.records.record.dim == config_.dim && config_.dim % 32 == 0);
    CHECK(t.file == nullptr ? t.all_hot() : t.file->alignment() <= kAlignmentMax);
  }
  for (const model::LayerWeights& w : weights_.layers) CHECK(!w.sparse.valid() || !w.moe.shared.gate.valid());
}

SparseOptions SparseFfn::complete(const Parts& parts, const SparseOptions& options) {
  SparseOptions o = options;
  o.decode_tokens = std::min(o.decode_tokens, o.max_tokens);
  for (const NeuronTable& t : parts.tables) {
    o.fetch.record_bytes_max = std::max(o.fetch.record_bytes_max, t.record_bytes());
  }
  return o;
}

ClusterRing::Options SparseFfn::ring_options(const SparseOptions& o) {
  return {.clusters = o.ring_clusters, .gap_bytes = o.fetch.gap_bytes, .use_cache = o.fetch.use_cache};
}

bool SparseFfn::needs_rest(const Parts& parts) {
  return std::any_of(parts.weights.layers.begin(), parts.weights.layers.end(),
                     [](const model::LayerWeights& w) { return !w.sparse.valid(); });
}

DecoderShape SparseFfn::decoder_shape(const Parts& parts, const SparseOptions& o) {
  DecoderShape shape{.tokens = o.decode_tokens, .uses = o.decode_tokens, .dim = parts.config.dim};
  for (const NeuronTable& t : parts.tables) {
    shape.clusters = std::max(shape.clusters, (t.expert_neurons() + kClusterNeurons - 1) / kClusterNeurons);
    shape.up_row_bytes = std::max(shape.up_row_bytes, row_bytes(t.records.record.up_type, parts.config.dim));
    if (t.records.experts == 1) continue;
    shape.uses = o.decode_tokens * used_experts(parts.config);
    shape.groups = std::max(shape.groups, std::min(shape.uses, t.records.experts));
  }
  return shape;
}

SparseFfn::Buffers SparseFfn::layout(model::ScratchLayout& at, const Parts& parts, const SparseOptions& o) {
  Buffers b;
  b.acts = at.take<std::byte>(act_bytes(o.max_tokens, parts.config.dim));
  const DecoderShape shape = decoder_shape(parts, o);
  const bool any_experts =
      std::any_of(parts.tables.begin(), parts.tables.end(), [](const NeuronTable& t) { return t.records.experts > 1; });
  if (!any_experts) return b;
  b.x = at.take<float>(std::max(o.max_tokens, shape.uses) * parts.config.dim);
  // One group of many tokens, or the groups of few, each padded to a tile.
  b.group_acts_bytes = std::max(act_bytes(o.max_tokens, parts.config.dim),
                                shape.groups * act_bytes(kernels::kTokenTile, parts.config.dim));
  b.group_acts = at.take<std::byte>(b.group_acts_bytes);
  b.y = at.take<float>(o.max_tokens * parts.config.dim);
  return b;
}

size_t SparseFfn::bytes(const Parts& parts, const SparseOptions& options) {
  const SparseOptions o = complete(parts, options);
  const sys::ThreadPool& threads = parts.multiplier.threads();
  model::ScratchLayout count;
  layout(count, parts, o);
  return count.bytes() + model::Router::bytes(parts.config, o.max_tokens) + model::ExpertGuess::bytes(parts.config) +
         (needs_rest(parts) ? model::FullFfn::bytes(parts.config, o.max_tokens) : 0) +
         ClusterRing::bytes(parts.tables, ring_options(o)) +
         SparseDecoder::bytes(threads, decoder_shape(parts, o), o.fetch, parts.queue != nullptr) +
         SparseStream::bytes(threads, o.max_tokens);
}

const NeuronTable& SparseFfn::table(int layer) const {
  return tables_[static_cast<size_t>(weights_.layers[static_cast<size_t>(layer)].sparse.table)];
}

bool SparseFfn::fetches(const NeuronTable& t, int64_t tokens) const {
  return tokens <= options_.decode_tokens && !options_.whole_layers && t.records.record.layout == RecordLayout::kSplit;
}

void SparseFfn::prepare(int layer) {
  if (rest_ != nullptr) rest_->prepare(layer);
  ring_.poll();
}

Status SparseFfn::forward(int layer, const float* x, int64_t tokens, float* out) {
  const model::LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  if (!w.sparse.valid()) return rest_->forward(layer, x, tokens, out);
  const NeuronTable& t = table(layer);
  const NeuronRecord& record = t.records.record;
  const bool quantized = !is_float(record.gate_type) || !is_float(record.up_type) ||
                         multiplier_.wants_quantized(std::span(&w.moe.router, 1));
  const kernels::ActView acts = model::Multiplier::view(x, tokens, config_.dim, buffers_.acts, quantized);
  multiplier_.quantize(acts);
  Status status = t.records.experts > 1 ? experts(layer, acts, out) : dense(layer, acts, out);
  if (!status.ok()) ring_.flush();
  return status;
}

Status SparseFfn::decode(const NeuronTable& t, size_t groups) {
  STOKE_TRY(decoder_.forward(t, std::span(groups_).first(groups)));
  return firings_ == nullptr ? ok_status() : firings_->add(t, decoder_.jobs());
}

Status SparseFfn::dense(int layer, const kernels::ActView& x, float* out) {
  const NeuronTable& t = table(layer);
  const model::SparseFfnWeights& w = weights_.layers[static_cast<size_t>(layer)].sparse;
  groups_[0] = {.x = x, .gate = w.gate, .activation = config_.activation};
  if (fetches(t, x.tokens)) {
    STOKE_TRY(decode(t, 1));
    decoder_.sum(or_null(w.factors), out);
    return ok_status();
  }
  if (!ring_.expects(t, 0)) {
    ring_.flush();
    ring_.expect(t, 0, t.records.neurons);
  }
  expect_layer(layer + 1);
  std::fill_n(out, x.tokens * config_.dim, 0.0f);
  STOKE_TRY(stream_.forward(t, groups_[0], t.records.neurons, out));
  apply_factors(or_null(w.factors), x.tokens, out);
  return ok_status();
}

void SparseFfn::apply_factors(const float* factors, int64_t tokens, float* out) {
  if (factors == nullptr) return;
  multiplier_.threads().parallel_for(tokens, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t d = 0; d < config_.dim; ++d) out[t * config_.dim + d] *= factors[d];
    }
  });
}

// Reads ahead into the next layer. Not into the last one where few tokens would fetch for themselves: a prompt wants
// its last token's state alone there.
void SparseFfn::expect_layer(int layer) {
  if (layer >= config_.layers || !weights_.layers[static_cast<size_t>(layer)].sparse.valid()) return;
  const NeuronTable& t = table(layer);
  if (t.records.experts > 1 || (layer + 1 == config_.layers && fetches(t, 1))) return;
  ring_.expect(t, 0, t.records.neurons);
}

int64_t SparseFfn::group_end(int64_t begin, int64_t all) const {
  const model::ExpertUse* uses = router_.uses();
  int64_t end = begin + 1;
  while (end < all && uses[end].expert == uses[begin].expert) ++end;
  return end;
}

// The tokens of uses [begin, end), all of one expert, gathered from row `row` on and quantised into `acts`. A single
// token's activations are at hand.
TokenGroup SparseFfn::group_of(const model::SparseFfnWeights& w, const kernels::ActView& x, int64_t begin, int64_t end,
                               int64_t row, std::byte* acts) {
  const model::ExpertUse* uses = router_.uses();
  const int64_t expert = uses[begin].expert;
  TokenGroup group{
      .first_neuron = expert * w.neurons, .first_use = begin, .x = x, .gate = {}, .activation = config_.activation};
  if (w.gates.valid()) group.gate = w.gates.expert(expert);
  if (x.tokens == 1) return group;
  float* rows = buffers_.x + row * config_.dim;
  for (int64_t u = begin; u < end; ++u) {
    std::copy_n(x.f + uses[u].token * x.f_stride, config_.dim, rows + (u - begin) * config_.dim);
  }
  group.x = model::Multiplier::view(rows, end - begin, config_.dim, acts, x.q != nullptr);
  multiplier_.quantize(group.x);
  return group;
}

Status SparseFfn::experts(int layer, const kernels::ActView& x, float* out) {
  const model::LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const NeuronTable& t = table(layer);
  STOKE_TRY(router_.route(w.moe, x));
  const int64_t uses = x.tokens * config_.moe.used;
  for (int64_t begin = 0; begin < uses && w.sparse.gates.valid(); begin = group_end(begin, uses)) {
    const model::ExpectedProduct gate{.w = w.sparse.gates.expert(router_.uses()[begin].expert), .up = {}};
    multiplier_.source().expect(std::span(&gate, 1));
  }
  STOKE_TRY(guess_.guess(layer, x));
  std::fill_n(out, x.tokens * config_.dim, 0.0f);
  return fetches(t, x.tokens) ? fetch_experts(t, w.sparse, x, uses, out) : stream_experts(t, w.sparse, x, uses, out);
}

// All chosen experts at once: their clusters are jobs beside each other.
Status SparseFfn::fetch_experts(const NeuronTable& t, const model::SparseFfnWeights& w, const kernels::ActView& x,
                                int64_t uses, float* out) {
  size_t groups = 0;
  std::byte* acts = buffers_.group_acts;
  for (int64_t begin = 0; begin < uses; ++groups) {
    const int64_t end = group_end(begin, uses);
    groups_[groups] = group_of(w, x, begin, end, begin, acts);
    acts += act_bytes(end - begin, config_.dim);
    begin = end;
  }
  STOKE_TRY(decode(t, groups));
  decoder_.sum(router_.uses(), uses, or_null(w.factors), out);
  return ok_status();
}

// Expert after expert, in ascending number.
Status SparseFfn::stream_experts(const NeuronTable& t, const model::SparseFfnWeights& w, const kernels::ActView& x,
                                 int64_t uses, float* out) {
  ring_.flush();
  for (int64_t begin = 0; begin < uses; begin = group_end(begin, uses)) {
    ring_.expect(t, router_.uses()[begin].expert * w.neurons, w.neurons);
  }
  for (int64_t begin = 0; begin < uses;) {
    const int64_t end = group_end(begin, uses);
    const TokenGroup group = group_of(w, x, begin, end, 0, buffers_.group_acts);
    std::fill_n(buffers_.y, (end - begin) * config_.dim, 0.0f);
    STOKE_TRY(stream_.forward(t, group, w.neurons, buffers_.y));
    const int64_t expert = router_.uses()[begin].expert;
    apply_factors(w.factors.empty() ? nullptr : w.factors.data() + expert * config_.dim, end - begin, buffers_.y);
    multiplier_.threads().parallel_for(end - begin, kernels::kTokenTile, [&](int64_t u0, int64_t u1, int) {
      for (int64_t u = u0; u < u1; ++u) {
        const model::ExpertUse& use = router_.uses()[begin + u];
        multiplier_.kernels().axpy(out + use.token * config_.dim, buffers_.y + u * config_.dim, use.weight,
                                   config_.dim);
      }
    });
    begin = end;
  }
  return ok_status();
}

void SparseFfn::discard_scratch() {
  scratch_.discard();
  router_.discard_scratch();
  if (rest_ != nullptr) rest_->discard_scratch();
  stream_.discard_scratch();
}

SparseCounts SparseFfn::counts() const {
  return {.fetch = decoder_.counts(),
          .neurons = decoder_.neurons(),
          .stream_reads = ring_.reads(),
          .stream_bytes = ring_.read_bytes(),
          .stall_ns = queue_ == nullptr ? 0 : queue_->stall_ns()};
}

}  // namespace stoke::pipeline
