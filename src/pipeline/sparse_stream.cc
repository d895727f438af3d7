#include "pipeline/sparse_stream.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/sparse.h"

namespace stoke::pipeline {
namespace {

constexpr int64_t kWave = SparseStream::kWaveClusters * kClusterNeurons;
constexpr int64_t kBlockRows = 128;
// Columns widened at a time: with 256 rows 128 KiB, which stays in the second-level cache beside the sums of 512
// tokens. Those are copied side by side: in place they lie `dim` apart, mostly in the same few sets of the cache, and
// adding took 2.6 times as long (512 tokens, dim 4096).
constexpr int64_t kColumns = 128;
constexpr int64_t kColumnsMax = 256;  // of types with blocks of 256
// Keeps rows of the widened tile apart in the cache's sets.
constexpr int64_t kPadding = 16;

static_assert(static_cast<size_t>(kClusterNeurons * (kColumnsMax + kPadding)) * sizeof(float) <=
              kernels::kFloatScratchBytes);

int64_t tile_columns(DType type) { return std::max<int64_t>(kColumns, info(type).block_elems); }

}  // namespace

SparseStream::SparseStream(model::Multiplier& multiplier, const ClusterMath& math, ClusterSource& source,
                           int64_t max_tokens)
    : multiplier_(multiplier),
      kernels_(multiplier.kernels()),
      threads_(multiplier.threads()),
      math_(math),
      source_(source),
      scratch_(bytes(multiplier.threads(), max_tokens)),
      max_tokens_(max_tokens) {
  model::ScratchLayout at(scratch_.data());
  buffers_ = layout(at, threads_, max_tokens, &workers_);
}

size_t SparseStream::bytes(const sys::ThreadPool& threads, int64_t max_tokens) {
  model::ScratchLayout count;
  layout(count, threads, max_tokens, nullptr);
  return count.bytes();
}

SparseStream::Buffers SparseStream::layout(model::ScratchLayout& at, const sys::ThreadPool& threads, int64_t max_tokens,
                                           std::vector<ClusterScratch>* workers) {
  Buffers b;
  b.gate = at.take<float>(max_tokens * kWave);
  b.up = at.take<float>(max_tokens * kWave);
  b.index = at.take<uint8_t>(max_tokens * kWave);
  b.counts = at.take<int32_t>(max_tokens * kWaveClusters);
  b.uses = at.take<int32_t>(kWave);
  b.sums = at.take<float>(threads.size() * max_tokens * kColumnsMax);
  for (int worker = 0; worker < threads.size(); ++worker) {
    const ClusterScratch scratch = layout_cluster_scratch(at, 1, 0);
    if (workers != nullptr) workers->push_back(scratch);
  }
  return b;
}

Status SparseStream::forward(const NeuronTable& table, const TokenGroup& group, int64_t neurons, float* out) {
  for (int64_t row = 0; row < neurons; row += kWave) {
    Wave wave{
        .table = &table, .group = &group, .first = group.first_neuron + row, .neurons = std::min(kWave, neurons - row)};
    Status status;
    int64_t held = 0;
    for (; held < wave.clusters(); ++held) {
      Result<const std::byte*> records =
          source_.acquire(table, wave.first + held * kClusterNeurons, wave.cluster_neurons(held));
      if (!records.ok()) {
        status = records.status();
        break;
      }
      wave.records[held] = *records;
    }
    if (status.ok()) status = run_wave(wave, row, out);
    if (status.ok()) {
      count_uses(wave);
    } else {
      std::fill_n(buffers_.uses, wave.neurons, 0);
    }
    for (int64_t c = 0; c < held; ++c) {
      source_.release(table, wave.first + c * kClusterNeurons, wave.cluster_neurons(c),
                      buffers_.uses + c * kClusterNeurons);
    }
    STOKE_TRY(status);
  }
  return ok_status();
}

Status SparseStream::run_wave(const Wave& wave, int64_t first_row, float* out) {
  const sys::TraceSpan span(threads_.trace(), 0, sys::TraceKind::kClusters, wave.first, wave.neurons);
  const NeuronRecord& record = wave.table->records.record;
  const model::MatrixSlice& gate = wave.group->gate;
  if (gate.valid()) {
    const int64_t row = gate.rows.begin + first_row;
    STOKE_TRY(multiplier_.run(
        {.w = {gate.id, {row, row + wave.neurons}}, .x = wave.group->x, .y = buffers_.gate, .y_stride = kWave}));
  } else {
    multiply_records(wave, record.gate_type, record.gate_offset, buffers_.gate);
  }
  multiply_records(wave, record.up_type, record.up_offset, buffers_.up);
  pack(wave);
  add_down(wave, out);
  return ok_status();
}

// y (tokens, kWave): one part of every record times every token. The kernels' row_bytes is the distance between rows.
void SparseStream::multiply_records(const Wave& wave, DType type, size_t offset, float* y) {
  const int64_t blocks_of_cluster = kClusterNeurons / kBlockRows;
  threads_.parallel_for(wave.clusters() * blocks_of_cluster, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t c = block / blocks_of_cluster;
      const int64_t first = block % blocks_of_cluster * kBlockRows;
      const int64_t last = std::min(first + kBlockRows, wave.cluster_neurons(c));
      if (first >= last) continue;
      const size_t stride = wave.table->record_bytes();
      kernels_.matmul({.w = {type,
                             {0, last - first},
                             wave.table->records.record.dim,
                             stride,
                             wave.records[c] + static_cast<size_t>(first) * stride + offset},
                       .x = wave.group->x,
                       .y = y + c * kClusterNeurons + first,
                       .y_stride = kWave,
                       .scratch = workers_[static_cast<size_t>(worker)].kernel});
      if (worker == 0) source_.poll();
    }
  });
}

void SparseStream::pack(const Wave& wave) {
  threads_.parallel_for(wave.group->x.tokens, kernels::kTokenTile, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) pack_token(wave, t);
  });
}

// h of the neurons that count, cluster by cluster, in place of the gates: never ahead of what is read.
void SparseStream::pack_token(const Wave& wave, int64_t token) {
  float* gate = buffers_.gate + token * kWave;
  const float* up = buffers_.up + token * kWave;
  uint8_t* index = buffers_.index + token * kWave;
  for (int64_t c = 0; c < wave.clusters(); ++c) {
    const int64_t base = c * kClusterNeurons;
    int32_t count = 0;
    for (int64_t i = 0; i < wave.cluster_neurons(c); ++i) {
      const float h = math_.activate(gate[base + i], up[base + i]);
      gate[base + count] = h;
      index[base + count] = static_cast<uint8_t>(i);
      count += h == 0.0f ? 0 : 1;
    }
    buffers_.counts[token * kWaveClusters + c] = count;
  }
}

void SparseStream::add_down(const Wave& wave, float* out) {
  const NeuronRecord& record = wave.table->records.record;
  threads_.parallel_for(record.dim, tile_columns(record.down_type), [&](int64_t begin, int64_t end, int worker) {
    const int64_t step = tile_columns(record.down_type);
    for (int64_t first = begin; first < end; first += step) {
      add_columns(wave, first, std::min(step, end - first), worker, out);
      if (worker == 0) source_.poll();
    }
  });
}

// Columns [first, first + n) of out, for all tokens and the wave's clusters in order.
void SparseStream::add_columns(const Wave& wave, int64_t first, int64_t n, int worker, float* out) {
  const int64_t tokens = wave.group->x.tokens;
  const int64_t dim = wave.table->records.record.dim;
  float* sums = buffers_.sums + worker * max_tokens_ * kColumnsMax;
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(out + t * dim + first, n, sums + t * n);
  for (int64_t c = 0; c < wave.clusters(); ++c) {
    add_cluster(wave, c, first, n, workers_[static_cast<size_t>(worker)], sums);
  }
  for (int64_t t = 0; t < tokens; ++t) std::copy_n(sums + t * n, n, out + t * dim + first);
}

// sums (tokens, n) += the cluster's partial sums.
void SparseStream::add_cluster(const Wave& wave, int64_t c, int64_t first, int64_t n, const ClusterScratch& s,
                               float* sums) {
  const NeuronTable& table = *wave.table;
  const NeuronRecord& record = table.records.record;
  auto* wide = reinterpret_cast<float*>(s.kernel);
  const int64_t stride = n + kPadding;
  const int64_t count = wave.cluster_neurons(c);
  for (int64_t i = 0; i < count; ++i) {
    s.rows[i] = wave.records[c] + static_cast<size_t>(i) * record.record_bytes + record.down_offset;
    const int64_t at = (wave.first + c * kClusterNeurons + i) / kCodeBlock * record.dim;
    s.scales[i] = table.scales == nullptr ? nullptr : table.scales + at;
    s.mins[i] = table.mins == nullptr ? nullptr : table.mins + at;
  }
  const kernels::DownRows down{record.down_type, record.down_encoding, s.rows, s.scales, s.mins, count, record.dim};
  kernels_.sparse->widen_rows(down, first, n, wide, stride);
  for (int64_t t = 0; t < wave.group->x.tokens; ++t) {
    const int64_t at = t * kWave + c * kClusterNeurons;
    kernels_.sparse->add_widened(wide, stride, n, buffers_.index + at, buffers_.gate + at,
                                 buffers_.counts[t * kWaveClusters + c], sums + t * n);
  }
}

void SparseStream::count_uses(const Wave& wave) {
  std::fill_n(buffers_.uses, kWave, 0);
  for (int64_t t = 0; t < wave.group->x.tokens; ++t) {
    for (int64_t c = 0; c < wave.clusters(); ++c) {
      const uint8_t* index = buffers_.index + t * kWave + c * kClusterNeurons;
      const int32_t count = buffers_.counts[t * kWaveClusters + c];
      for (int32_t i = 0; i < count; ++i) ++buffers_.uses[c * kClusterNeurons + index[i]];
      active_ += static_cast<uint64_t>(count);
    }
  }
}

}  // namespace stoke::pipeline
