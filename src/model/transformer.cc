#include "model/transformer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace stoke::model {
namespace {

void clamp(float* x, int64_t n, float limit) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], -limit, limit);
}

}  // namespace

// The paper's page: a stack of layers over one residual stream.
Status Transformer::forward(const Batch& batch) {
  place(batch);
  source_.begin_pass(!batch.outputs.empty());
  STOKE_TRY(embed(batch));
  rotate_tables(rows_);
  for (int layer = 0; layer < config_.layers; ++layer) {
    ffn_->prepare(layer);
    STOKE_TRY(attend(layer, batch));
    STOKE_TRY(feed_forward(layer));
  }
  return ok_status();
}

// x += post_norm(W_o attention(rope(q), rope(k), v)), q, k, v = W norm(x).
Status Transformer::attend(int layer, const Batch& batch) {
  const sys::TraceSpan span(threads_.trace(), 0, sys::TraceKind::kAttention, layer);
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  STOKE_TRY(project_qkv(layer));
  finish_qkv(layer, batch);
  attention({.shape = attention_shape(config_, &w, config_.layer[static_cast<size_t>(layer)].window),
             .pool = &pool_,
             .layer = layer,
             .runs = batch.runs,
             .q = buffers_.q,
             .q_stride = config_.q_dim(),
             .out = buffers_.attended,
             .out_stride = config_.q_dim(),
             .scratch = buffers_.attention},
            kernels_, threads_);
  if (layer + 1 == config_.layers) keep(batch.outputs);  // the rest of the last layer is for these rows alone
  if (rows_ == 0) return ok_status();
  const kernels::ActView attended = Multiplier::view(buffers_.attended, rows_, config_.q_dim(), buffers_.acts,
                                                     multiplier_.wants_quantized(std::span(&w.o, 1)));
  multiplier_.quantize(attended);
  STOKE_TRY(multiplier_.run({.w = w.o, .x = attended, .y = buffers_.out, .y_stride = config_.dim}));
  add_to_stream(w.attn_post_norm, w.o_bias);
  return ok_status();
}

// x += post_norm(ffn(norm(x))).
Status Transformer::feed_forward(int layer) {
  if (rows_ == 0) return ok_status();
  const sys::TraceSpan span(threads_.trace(), 0, sys::TraceKind::kFfn, layer);
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const float* in = buffers_.x;
  if (!w.ffn_norm.empty()) {
    norm(w.ffn_norm, buffers_.x, buffers_.normed, rows_);
    in = buffers_.normed;
  }
  STOKE_TRY(ffn_->forward(layer, in, rows_, buffers_.out));
  add_to_stream(w.ffn_post_norm, Vector());
  return ok_status();
}

Status Transformer::logits(int64_t first, int64_t count, float* out) {
  const sys::TraceSpan span(threads_.trace(), 0, sys::TraceKind::kLogits, count);
  CHECK(first >= 0 && count > 0 && first + count <= rows_);
  norm(weights_.output_norm, buffers_.x + first * config_.dim, buffers_.normed, count);
  const kernels::ActView x = Multiplier::view(buffers_.normed, count, config_.dim, buffers_.acts,
                                              multiplier_.wants_quantized(std::span(&weights_.head, 1)));
  multiplier_.quantize(x);
  STOKE_TRY(multiplier_.run({.w = weights_.head, .x = x, .y = out, .y_stride = config_.vocab}));
  if (config_.logit_softcap > 0) {
    threads_.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
      kernels_.softcap(out + begin * config_.vocab, config_.logit_softcap, (end - begin) * config_.vocab);
    });
  }
  return ok_status();
}

Transformer::Transformer(const Parts& parts, const TransformerOptions& options)
    : config_(parts.config),
      weights_(parts.weights),
      source_(parts.source),
      pool_(parts.pool),
      kernels_(parts.kernels),
      threads_(parts.threads),
      options_(options),
      multiplier_(kernels_, threads_, source_, {.max_tokens = options.max_batch}),
      ffn_(parts.make_ffn ? parts.make_ffn(multiplier_)
                          : std::make_unique<FullFfn>(config_, weights_, multiplier_, options.max_batch)) {
  CHECK(options.max_context == pool_.options().max_context);
  ScratchLayout count;
  layout(count, config_, threads_, options);
  scratch_ = Scratch(count.bytes());
  ScratchLayout at(scratch_.data());
  buffers_ = layout(at, config_, threads_, options);
  rope_frequencies_[0] = rope_frequencies(config_.rope, options.max_context);
  if (config_.local_rope.n_rot > 0) {
    rope_frequencies_[1] = rope_frequencies(config_.local_rope, options.max_context);
  }
}

void Transformer::discard_scratch() {
  rows_ = 0;
  scratch_.discard();
  multiplier_.discard_scratch();
  ffn_->discard_scratch();
}

size_t Transformer::bytes(const Config& config, const sys::ThreadPool& threads, const TransformerOptions& options) {
  ScratchLayout count;
  layout(count, config, threads, options);
  return count.bytes() + FullFfn::bytes(config, options.max_batch) +
         Multiplier::bytes(threads, {.max_tokens = options.max_batch});
}

Transformer::Buffers Transformer::layout(ScratchLayout& at, const Config& c, const sys::ThreadPool& threads,
                                         const TransformerOptions& options) {
  const int64_t rows = options.max_batch;
  Buffers b;
  b.positions = at.take<int64_t>(rows);
  b.x = at.take<float>(rows * c.dim);
  b.normed = at.take<float>(rows * c.dim);
  b.out = at.take<float>(rows * c.dim);
  b.q = at.take<float>(rows * c.q_dim());
  b.k = at.take<float>(rows * c.kv_dim());
  b.v = at.take<float>(rows * c.kv_dim());
  b.attended = at.take<float>(rows * c.q_dim());
  b.acts = at.take<std::byte>(static_cast<int64_t>(kernels::act_bytes(rows, std::max(c.dim, c.q_dim()))));
  b.row = at.take<std::byte>(c.dim * int64_t{sizeof(float)});  // no stored type is wider
  const AttentionShape shape = attention_shape(c, nullptr, 0);
  b.attention =
      at.take<std::byte>(static_cast<int64_t>(attention_scratch_bytes(shape, threads.size(), options.max_context)));
  b.angles[0] = at.take<float>(rows * c.rope.n_rot);
  b.angles[1] = at.take<float>(rows * c.local_rope.n_rot);
  return b;
}

AttentionShape Transformer::attention_shape(const Config& config, const LayerWeights* w, int64_t window) {
  return {.heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .scale = config.attention_scale,
          .softcap = config.attention_softcap,
          .window = window,
          .sinks = w == nullptr || w->sinks.empty() ? nullptr : w->sinks.data()};
}

// Position of each row.
void Transformer::place(const Batch& batch) {
  rows_ = static_cast<int64_t>(batch.tokens.size());
  CHECK(rows_ > 0 && rows_ <= options_.max_batch);
  int64_t row = 0;
  for (const SequenceRun& run : batch.runs) {
    CHECK(run.first == row && run.first + run.count <= rows_);
    for (int64_t i = 0; i < run.count; ++i, ++row) buffers_.positions[row] = run.pos + i;
  }
  CHECK(row == rows_);
}

Status Transformer::embed(const Batch& batch) {
  const sys::TraceSpan span(threads_.trace(), 0, sys::TraceKind::kEmbedding, rows_);
  const DType type = source_.matrix(weights_.embedding).type;
  source_.expect_rows(weights_.embedding, batch.tokens);
  for (int64_t row = 0; row < rows_; ++row) {
    const int32_t token = batch.tokens[static_cast<size_t>(row)];
    CHECK(token >= 0 && token < config_.vocab);
    STOKE_TRY(source_.read_row(weights_.embedding, token, buffers_.row));
    float* x = buffers_.x + row * config_.dim;
    kernels_.dequantize_row(type, buffers_.row, x, config_.dim);
    if (config_.embedding_scale != 1.0f) kernels_.scale(x, config_.embedding_scale, config_.dim);
  }
  return ok_status();
}

// Cosines and sines of the batch's positions, from the absolute position in double.
void Transformer::rotate_tables(int64_t rows) {
  for (int set = 0; set < 2; ++set) {
    const std::vector<double>& frequencies = rope_frequencies_[set];
    const auto half = static_cast<int64_t>(frequencies.size());
    if (half == 0) continue;
    const double magnitude = (set == 0 ? config_.rope : config_.local_rope).attention_factor;
    threads_.parallel_for(rows, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        float* cos = buffers_.angles[set] + row * 2 * half;
        for (int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(buffers_.positions[row]) * frequencies[static_cast<size_t>(i)];
          cos[i] = static_cast<float>(std::cos(angle) * magnitude);
          cos[half + i] = static_cast<float>(std::sin(angle) * magnitude);
        }
      }
    });
  }
}

Status Transformer::project_qkv(int layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const float* in = buffers_.x;
  if (!w.attn_norm.empty()) {
    norm(w.attn_norm, buffers_.x, buffers_.normed, rows_);
    in = buffers_.normed;
  }
  const std::array<MatrixSlice, 3> slices = {w.q, w.k, w.v};
  const kernels::ActView x =
      Multiplier::view(in, rows_, config_.dim, buffers_.acts, multiplier_.wants_quantized(slices));
  multiplier_.quantize(x);
  const std::array<Product, 3> products = {Product{.w = w.q, .x = x, .y = buffers_.q, .y_stride = config_.q_dim()},
                                           Product{.w = w.k, .x = x, .y = buffers_.k, .y_stride = config_.kv_dim()},
                                           Product{.w = w.v, .x = x, .y = buffers_.v, .y_stride = config_.kv_dim()}};
  return multiplier_.run(products, Gating());
}

// Bias, norm and rotation of each row's heads; K and V go to their place in the cache, where a token's K lies apart and
// waits for memory: so a few rows are shared between threads as well, and a single row's heads.
void Transformer::finish_qkv(int layer, const Batch& batch) {
  const NewKv rows{buffers_.k, buffers_.v, config_.kv_dim()};
  if (rows_ == 1) {
    finish_row(layer, 0);
    const int part = (config_.kv_heads + threads_.size() - 1) / threads_.size();
    threads_.parallel_for(config_.kv_heads, part, [&](int64_t begin, int64_t end, int) {
      store_kv(pool_, batch.runs[0], layer, static_cast<int>(begin), static_cast<int>(end), rows, kernels_);
    });
    return;
  }
  const int64_t grain = rows_ <= kernels::kTokenTile ? 1 : kernels::kTokenTile;
  threads_.parallel_for(rows_, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) finish_row(layer, row);
    for (const SequenceRun& run : batch.runs) {
      const int64_t first = std::max(begin, run.first);
      const int64_t last = std::min(end, run.first + run.count);
      if (first >= last) continue;
      const SequenceRun mine{.seq = run.seq, .first = first, .count = last - first, .pos = run.pos + first - run.first};
      store_kv(pool_, mine, layer, 0, config_.kv_heads, rows, kernels_);
    }
  });
}

void Transformer::finish_row(int layer, int64_t row) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  float* q = buffers_.q + row * config_.q_dim();
  float* k = buffers_.k + row * config_.kv_dim();
  float* v = buffers_.v + row * config_.kv_dim();
  if (!w.q_bias.empty()) kernels_.add(q, w.q_bias.data(), config_.q_dim());
  if (!w.k_bias.empty()) kernels_.add(k, w.k_bias.data(), config_.kv_dim());
  if (!w.v_bias.empty()) kernels_.add(v, w.v_bias.data(), config_.kv_dim());
  if (config_.clamp_qkv > 0) clamp(v, config_.kv_dim(), config_.clamp_qkv);
  finish_heads(layer, row, w.q_norm, q, config_.heads);
  finish_heads(layer, row, w.k_norm, k, config_.kv_heads);
}

void Transformer::finish_heads(int layer, int64_t row, const Vector& head_norm, float* x, int heads) {
  const LayerConfig& how = config_.layer[static_cast<size_t>(layer)];
  // A norm as long as a head is applied to each by itself; otherwise to all heads as one vector.
  const auto span = static_cast<int64_t>(head_norm.size());
  for (int64_t at = 0; span > 0 && at < int64_t{heads} * config_.head_dim; at += span) {
    kernels_.rms_norm(x + at, head_norm.data(), span, config_.norm_eps, false, x + at);
  }
  if (config_.clamp_qkv > 0) clamp(x, int64_t{heads} * config_.head_dim, config_.clamp_qkv);
  if (!how.rope) return;
  const RopeConfig& rope = how.local_rope ? config_.local_rope : config_.rope;
  const float* cos = buffers_.angles[how.local_rope ? 1 : 0] + row * rope.n_rot;
  for (int h = 0; h < heads; ++h) {
    kernels_.rope(x + int64_t{h} * config_.head_dim, cos, cos + rope.n_rot / 2, rope.n_rot, rope.neox);
  }
}

// From here on the stream holds the wanted rows alone.
void Transformer::keep(std::span<const int64_t> outputs) {
  int64_t to = 0;
  for (const int64_t from : outputs) {
    CHECK(from >= to && from < rows_);
    if (from != to) {
      const int64_t width = config_.q_dim();
      std::copy_n(buffers_.x + from * config_.dim, config_.dim, buffers_.x + to * config_.dim);
      std::copy_n(buffers_.attended + from * width, width, buffers_.attended + to * width);
    }
    ++to;
  }
  rows_ = to;
}

void Transformer::norm(const Vector& weights, const float* x, float* out, int64_t rows) {
  threads_.parallel_for(rows, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * config_.dim;
      kernels_.rms_norm(x + at, weights.data(), config_.dim, config_.norm_eps, false, out + at);
    }
  });
}

// x += post_norm(out + bias).
void Transformer::add_to_stream(const Vector& post_norm, const Vector& bias) {
  threads_.parallel_for(rows_, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* out = buffers_.out + row * config_.dim;
      if (!bias.empty()) kernels_.add(out, bias.data(), config_.dim);
      if (!post_norm.empty()) {
        kernels_.rms_norm(out, post_norm.data(), config_.dim, config_.norm_eps, false, out);
      }
      kernels_.add(buffers_.x + row * config_.dim, out, config_.dim);
    }
  });
}

}  // namespace stoke::model
