#include "pipeline/cluster_job.h"

#include <algorithm>
#include <cstring>

#include "kernels/sparse.h"

namespace stoke::pipeline {
namespace {

// Up rows that are copied side by side for a product with several tokens: two panels of the batched product.
constexpr int32_t kStageRows = 32;

}  // namespace

ClusterScratch layout_cluster_scratch(model::ScratchLayout& at, int64_t tokens, size_t up_row_bytes) {
  ClusterScratch s;
  s.kernel = at.take<std::byte>(static_cast<int64_t>(kernels::scratch_bytes()));
  s.stage = at.take<std::byte>(tokens > 1 ? kStageRows * static_cast<int64_t>(up_row_bytes) : 0);
  s.up = at.take<float>(tokens * kClusterNeurons);
  s.h = at.take<float>(kClusterNeurons);
  s.rows = at.take<const std::byte*>(kClusterNeurons);
  s.scales = at.take<const uint16_t*>(kClusterNeurons);
  s.mins = at.take<const uint16_t*>(kClusterNeurons);
  return s;
}

void ClusterMath::select(ClusterJob& job) const {
  int32_t active = 0;
  for (int32_t i = 0; i < job.neurons; ++i) {
    job.index[active] = static_cast<uint8_t>(i);
    active += job.firings(i) > 0 ? 1 : 0;
  }
  job.active = active;
}

bool ClusterMath::place_hot(const NeuronTable& table, ClusterJob& job) {
  bool all = true;
  for (int32_t i = 0; i < job.active; ++i) {
    job.records[i] = table.hot_record(job.neuron(i));
    all &= job.records[i] != nullptr;
  }
  return all;
}

// up (token, active neuron): one token reads the records where they lie; several share rows copied side by side.
void ClusterMath::multiply_up(const NeuronTable& table, const ClusterJob& job, const ClusterScratch& s) const {
  const NeuronRecord& record = table.records.record;
  const kernels::ActView& x = job.group->x;
  if (x.tokens == 1) {
    for (int32_t i = 0; i < job.active; ++i) s.rows[i] = job.records[i] + record.up_offset;
    kernels_.sparse->gather_dot({record.up_type, s.rows, job.active, x, s.up, s.kernel});
    return;
  }
  const size_t bytes = row_bytes(record.up_type, record.dim);
  for (int32_t first = 0; first < job.active; first += kStageRows) {
    const int32_t count = std::min(kStageRows, job.active - first);
    for (int32_t i = 0; i < count; ++i) {
      std::memcpy(s.stage + static_cast<size_t>(i) * bytes, job.records[first + i] + record.up_offset, bytes);
    }
    kernels_.matmul({.w = {record.up_type, {0, count}, record.dim, bytes, s.stage},
                     .x = x,
                     .y = s.up + first,
                     .y_stride = kClusterNeurons,
                     .scratch = s.kernel});
  }
}

void ClusterMath::add_down(const NeuronTable& table, const ClusterJob& job, int64_t token,
                           const ClusterScratch& s) const {
  const NeuronRecord& record = table.records.record;
  const float* a = job.gate + token * kClusterNeurons;
  const float* up = s.up + token * kClusterNeurons;
  const bool codes = record.down_encoding == DownEncoding::kCodes;
  int64_t count = 0;
  for (int32_t i = 0; i < job.active; ++i) {
    const float h = activate(a[job.index[i]], up[i]);
    if (h == 0.0f) continue;
    s.h[count] = h;
    s.rows[count] = job.records[i] + record.down_offset;
    if (codes) {
      const int64_t at = job.neuron(i) / kCodeBlock * record.dim;
      s.scales[count] = table.scales + at;
      s.mins[count] = table.mins == nullptr ? nullptr : table.mins + at;
    }
    ++count;
  }
  float* partial = job.partial + token * job.partial_stride;
  std::memset(partial, 0, static_cast<size_t>(record.dim) * sizeof(float));
  kernels_.sparse->axpy_rows({record.down_type, record.down_encoding, s.rows, s.scales, s.mins, count, record.dim}, s.h,
                             partial, s.kernel);
}

void ClusterMath::compute(const NeuronTable& table, const ClusterJob& job, const ClusterScratch& scratch) const {
  multiply_up(table, job, scratch);
  for (int64_t t = 0; t < job.tokens(); ++t) add_down(table, job, t, scratch);
}

}  // namespace stoke::pipeline
