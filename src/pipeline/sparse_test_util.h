// A random little neuron store in memory, its gates behind a weight source, and the slow twin of the sparse FFN.
// Thread role: one thread. Ownership: values. Errors: none; for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/rows_test_util.h"
#include "kernels/sparse.h"
#include "model/config.h"
#include "model/weights.h"
#include "pipeline/sparse_ffn.h"
#include "sys/checksum.h"
#include "sys/memory.h"

namespace stoke::pipeline {

using Floats = std::vector<float>;

struct StoreCase {
  const char* name;
  RecordLayout layout = RecordLayout::kSplit;
  DownEncoding encoding = DownEncoding::kRequantized;
  DType gate = DType::kQ4_0, up = DType::kQ4_0, down = DType::kQ4_0;
  int64_t dim = 64;
  int64_t neurons = 700;  // of an expert
  int64_t experts = 1;
  int used = 1;
  model::NamedActivation activation{.kind = model::Activation::kRelu};
  int layers = 1;
  bool factors = false;
  double fires = 0.3;  // neurons whose gate is not zero; half of these fire
};

// Gives what it has in pieces of at most `rows_max` rows; every lease must come back.
class PieceSource final : public model::WeightSource {
 public:
  int64_t rows_max = 1 << 30;
  int64_t fail_after = -1;  // acquires until one is refused
  int leases = 0;

  model::MatrixId add(DType type, int64_t rows, int64_t cols, std::vector<std::byte> bytes) {
    infos_.push_back({type, rows, cols, row_bytes(type, cols)});
    bytes_.push_back(std::move(bytes));
    return {static_cast<int32_t>(infos_.size()) - 1};
  }
  const model::MatrixInfo& matrix(model::MatrixId id) const override { return infos_[static_cast<size_t>(id.index)]; }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    if (fail_after == 0) return Status(Code::kCancelled, "enough");
    if (fail_after > 0) --fail_after;
    const model::MatrixInfo& info = matrix(id);
    wanted.end = std::min(wanted.end, wanted.begin + rows_max);
    ++leases;
    return RowsView{info.type, wanted, info.cols, info.row_bytes,
                    bytes_[static_cast<size_t>(id.index)].data() + static_cast<size_t>(wanted.begin) * info.row_bytes};
  }
  void release(model::MatrixId, const RowsView&) override { --leases; }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override {
    const size_t bytes = matrix(id).row_bytes;
    std::memcpy(dst, bytes_[static_cast<size_t>(id.index)].data() + static_cast<size_t>(row) * bytes, bytes);
    return ok_status();
  }

 private:
  std::vector<model::MatrixInfo> infos_;
  std::vector<std::vector<std::byte>> bytes_;
};

class TestStore {
 public:
  explicit TestStore(const StoreCase& c, uint32_t seed) : shape(c), rng_(seed) {
    config.dim = c.dim;
    config.layers = c.layers;
    config.ffn = c.neurons;
    config.activation = c.activation;
    config.moe = {.experts = c.experts > 1 ? static_cast<int>(c.experts) : 0,
                  .used = c.used,
                  .ffn = c.neurons,
                  .softmax_first = false};
    config.layer.resize(static_cast<size_t>(c.layers), {.moe = c.experts > 1});
    layout_ = layout_record(c.layout, c.encoding, c.dim, c.gate, c.up, c.down);
    const size_t all = static_cast<size_t>(c.layers * c.experts * c.neurons) * layout_.record_bytes;
    image = std::move(sys::Memory::map(kOffset + all + 4096)).value();
    weights.layers.resize(static_cast<size_t>(c.layers));
    for (int layer = 0; layer < c.layers; ++layer) add_layer(layer);
    for (int layer = 0; layer < c.layers; ++layer) {
      tables[static_cast<size_t>(layer)].checksums = checksums_[static_cast<size_t>(layer)];
    }
  }

  // Every neuron in memory.
  std::vector<NeuronTable> hot_tables() const {
    std::vector<NeuronTable> hot = tables;
    for (NeuronTable& t : hot) {
      t.hot = image.data() + t.records.offset;
      t.hot_count = t.expert_neurons();
    }
    return hot;
  }
  Floats tokens(int64_t count) {
    std::normal_distribution<float> normal;
    Floats x(static_cast<size_t>(count * shape.dim));
    for (float& v : x) v = normal(rng_);
    return x;
  }
  // The contract, by plain loops, for one token.
  Floats expect(int layer, const float* x) const;

  StoreCase shape;
  model::Config config;
  model::Weights weights;
  PieceSource source;
  std::vector<NeuronTable> tables;  // nothing hot, file not set
  sys::Memory image;                // the file

 private:
  static constexpr size_t kOffset = 4096;
  void add_layer(int layer);
  Floats expert_sum(int layer, int64_t expert, const float* x) const;
  Floats row(DType type, const std::byte* bytes) const {
    Floats w(static_cast<size_t>(shape.dim));
    kernels::find("portable")->dequantize_row(type, bytes, w.data(), shape.dim);
    return w;
  }
  float dot(DType type, const std::byte* bytes, const float* x) const;
  Floats down_row(int layer, int64_t neuron) const;

  std::mt19937 rng_;
  NeuronRecord layout_;
  std::vector<std::vector<uint32_t>> checksums_;
  std::vector<std::vector<uint16_t>> scales_, mins_;
  std::vector<std::vector<std::byte>> gates_;
};

inline void TestStore::add_layer(int layer) {
  const int64_t all = shape.experts * shape.neurons;
  auto gates = kernels::random_rows(shape.gate, all, shape.dim, rng_);
  const size_t gate_bytes = row_bytes(shape.gate, shape.dim);
  for (int64_t i = 0; i < all; ++i) {
    if (static_cast<double>(rng_() % 1000) >= shape.fires * 1000) {
      std::memset(gates.data() + static_cast<size_t>(i) * gate_bytes, 0, gate_bytes);
    }
  }
  const auto ups = kernels::random_rows(shape.up, all, shape.dim, rng_);
  const auto downs = kernels::random_rows(shape.down, all, shape.dim, rng_);
  const size_t up_bytes = row_bytes(shape.up, shape.dim), down_bytes = row_bytes(shape.down, shape.dim);
  NeuronTable t;
  t.records = {.name = "records", .record = layout_, .layer = layer, .neurons = all, .experts = shape.experts};
  t.records.offset = kOffset + static_cast<size_t>(layer * all) * layout_.record_bytes;
  t.first_unit = layer * all;
  std::vector<uint32_t> sums;
  for (int64_t i = 0; i < all; ++i) {
    std::byte* record = image.data() + t.records.offset_of(i);
    const auto at = static_cast<size_t>(i);
    if (shape.layout == RecordLayout::kBundle) std::memcpy(record, gates.data() + at * gate_bytes, gate_bytes);
    std::memcpy(record + layout_.up_offset, ups.data() + at * up_bytes, up_bytes);
    std::byte* down = record + layout_.down_offset;
    const DTypeInfo& type = info(shape.down);
    const size_t head = type.has_min ? 4 : 2;
    for (size_t b = 0; b < down_bytes / type.block_bytes; ++b) {
      const std::byte* block = downs.data() + at * down_bytes + b * type.block_bytes;
      if (shape.encoding == DownEncoding::kRequantized) {
        std::memcpy(down + b * type.block_bytes, block, type.block_bytes);
      } else {
        std::memcpy(down + b * (type.block_bytes - head), block + head, type.block_bytes - head);
      }
    }
    sums.push_back(sys::checksum32(record, layout_.record_bytes));
  }
  for (auto* halves : {&scales_, &mins_}) {
    halves->emplace_back();
    for (int64_t i = 0; i < (all + kCodeBlock - 1) / kCodeBlock * shape.dim; ++i) {
      halves->back().push_back(float_to_half(0.001f + 0.00001f * static_cast<float>(rng_() % 1000)));
    }
  }
  t.scales = scales_.back().data();
  t.mins = mins_.back().data();
  checksums_.push_back(std::move(sums));
  gates_.push_back(gates);
  model::LayerWeights& w = weights.layers[static_cast<size_t>(layer)];
  w.sparse = {.table = layer, .neurons = shape.neurons};
  for (int64_t i = 0; shape.factors && i < shape.experts * shape.dim; ++i) {
    w.sparse.factors.push_back(std::ldexp(1.0f, static_cast<int>(rng_() % 7) - 3));
  }
  if (shape.experts > 1) {
    w.moe.router.id = source.add(DType::kF32, shape.experts, shape.dim,
                                 kernels::random_rows(DType::kF32, shape.experts, shape.dim, rng_));
    w.moe.router.rows = {0, shape.experts};
  }
  if (shape.layout == RecordLayout::kSplit) {
    const model::MatrixId id = source.add(shape.gate, all, shape.dim, std::move(gates));
    w.sparse.gate = {id, {0, all}};
    w.sparse.gates = {.id = id, .first = 0, .step = shape.neurons, .rows = shape.neurons};
  }
  tables.push_back(t);
}

inline float TestStore::dot(DType type, const std::byte* bytes, const float* x) const {
  const kernels::Kernels& k = *kernels::find("portable");
  const int64_t dim = shape.dim;
  model::Scratch acts(kernels::act_bytes(1, dim)), scratch(kernels::scratch_bytes());
  kernels::ActView view = kernels::act_carve(acts.data(), 1, dim);
  view.f = x;
  view.f_stride = dim;
  k.quantize_acts(view, 0, 1);
  float y = 0;
  k.matmul({.w = {type, {0, 1}, dim, row_bytes(type, dim), bytes},
            .x = view,
            .y = &y,
            .y_stride = 1,
            .scratch = scratch.data()});
  return y;
}

inline Floats TestStore::down_row(int layer, int64_t neuron) const {
  const NeuronTable& t = tables[static_cast<size_t>(layer)];
  const std::byte* down = image.data() + t.records.offset_of(neuron) + layout_.down_offset;
  if (shape.encoding == DownEncoding::kRequantized) return row(shape.down, down);
  Floats w(static_cast<size_t>(shape.dim));
  const auto at = static_cast<size_t>(neuron / kCodeBlock * shape.dim);
  const uint16_t* scales = t.scales + at;
  const uint16_t* mins = t.mins + at;
  kernels::find("portable")
      ->sparse->widen_rows({shape.down, shape.encoding, &down, &scales, &mins, 1, shape.dim}, 0, shape.dim, w.data(),
                           shape.dim);
  return w;
}

inline Floats TestStore::expert_sum(int layer, int64_t expert, const float* x) const {
  const NeuronTable& t = tables[static_cast<size_t>(layer)];
  Floats out(static_cast<size_t>(shape.dim), 0.0f);
  const size_t gate_bytes = row_bytes(shape.gate, shape.dim);
  for (int64_t c = 0; c < shape.neurons; c += kClusterNeurons) {
    Floats partial(out.size(), 0.0f);
    for (int64_t i = c; i < std::min(c + kClusterNeurons, shape.neurons); ++i) {
      const int64_t n = expert * shape.neurons + i;
      const float a =
          dot(shape.gate, gates_[static_cast<size_t>(layer)].data() + static_cast<size_t>(n) * gate_bytes, x);
      if (a <= shape.activation.threshold) continue;
      float u = dot(shape.up, image.data() + t.records.offset_of(n) + layout_.up_offset, x);
      if (shape.activation.kind == model::Activation::kDrelu) u = std::max(u, 0.0f);
      const float h = a * u;
      const Floats w = down_row(layer, n);
      for (size_t d = 0; d < out.size(); ++d) partial[d] = std::fma(h, w[d], partial[d]);
    }
    for (size_t d = 0; d < out.size(); ++d) out[d] += partial[d];
  }
  const model::Vector& factors = weights.layers[static_cast<size_t>(layer)].sparse.factors;
  for (size_t d = 0; d < out.size() && !factors.empty(); ++d) {
    out[d] *= factors[static_cast<size_t>(expert * shape.dim) + d];
  }
  return out;
}

inline Floats TestStore::expect(int layer, const float* x) const {
  if (shape.experts == 1) return expert_sum(layer, 0, x);
  auto& writable = const_cast<PieceSource&>(source);
  const model::MatrixSlice router = weights.layers[static_cast<size_t>(layer)].moe.router;
  std::vector<std::pair<float, int64_t>> logits;
  const int64_t fail_after = std::exchange(writable.fail_after, -1);
  for (int64_t e = 0; e < shape.experts; ++e) {
    std::vector<std::byte> bytes(row_bytes(DType::kF32, shape.dim));
    EXPECT_TRUE(writable.read_row(router.id, e, bytes.data()).ok());
    logits.emplace_back(-dot(DType::kF32, bytes.data(), x), e);
  }
  writable.fail_after = fail_after;
  std::sort(logits.begin(), logits.end());
  logits.resize(static_cast<size_t>(shape.used));
  std::sort(logits.begin(), logits.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  Floats share;
  for (const auto& l : logits) share.push_back(-l.first);
  kernels::find("portable")->softmax(share.data(), shape.used);
  Floats out(static_cast<size_t>(shape.dim), 0.0f);
  for (size_t u = 0; u < logits.size(); ++u) {
    const Floats y = expert_sum(layer, logits[u].second, x);
    for (size_t d = 0; d < out.size(); ++d) out[d] = std::fma(share[u], y[d], out[d]);
  }
  return out;
}

}  // namespace stoke::pipeline
