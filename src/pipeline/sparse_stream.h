// The sparse FFN of a layer for many tokens: their union of firing neurons is nearly dense, so every record is brought
// once, in order, for all of them (paper, section 4.1).
//
// Clusters come in waves. For each: gate and up of all neurons for all tokens by the batched products; h, packed to the
// neurons that fire for each token; then, a tile of columns at a time, the down rows widened to FP32 once and added for
// each token's own neurons. The same sums in the same order as for one token (cluster_job.h).
// Thread role: the control thread; work is split over the pool. Ownership: its scratch. After construction nothing is
// allocated. Errors: the weight source's and the cluster source's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/matmul.h"
#include "pipeline/cluster_job.h"

namespace stoke::pipeline {

// Where whole clusters come from.
class ClusterSource {
 public:
  virtual ~ClusterSource() = default;
  // The records of neurons [first, first + count), side by side, once they are all in memory and checked. They stay
  // until release() of the same first neuron. Asked for in ascending order.
  virtual Result<const std::byte*> acquire(const NeuronTable& table, int64_t first, int64_t count) = 0;
  // uses: (count) how many tokens used each neuron.
  virtual void release(const NeuronTable& table, int64_t first, int64_t count, const int32_t* uses) = 0;
  // Called between pieces of work, by the control thread.
  virtual void poll() = 0;
};

class SparseStream {
 public:
  static constexpr int64_t kWaveClusters = 4;

  SparseStream(model::Multiplier& multiplier, const ClusterMath& math, ClusterSource& source, int64_t max_tokens);
  static size_t bytes(const sys::ThreadPool& threads, int64_t max_tokens);

  // out (tokens, dim) += the network's sums. `neurons` of the table from group.first_neuron on.
  Status forward(const NeuronTable& table, const TokenGroup& group, int64_t neurons, float* out);

  uint64_t active() const { return active_; }
  void discard_scratch() { scratch_.discard(); }

 private:
  struct Buffers {
    float* gate = nullptr;      // (tokens, wave): gate . x; then, cluster by cluster, h of the neurons that count
    float* up = nullptr;        // (tokens, wave)
    uint8_t* index = nullptr;   // (tokens, wave): numbers in their cluster of those neurons
    int32_t* counts = nullptr;  // (tokens, kWaveClusters)
    int32_t* uses = nullptr;    // (wave)
    float* sums = nullptr;      // (threads, tokens, columns of a tile): out's tile side by side
  };
  static Buffers layout(model::ScratchLayout& at, const sys::ThreadPool& threads, int64_t max_tokens,
                        std::vector<ClusterScratch>* workers);
  // The clusters being computed.
  struct Wave {
    const NeuronTable* table = nullptr;
    const TokenGroup* group = nullptr;
    int64_t first = 0;    // neuron of the table
    int64_t neurons = 0;  // at most kWaveClusters * kClusterNeurons
    const std::byte* records[kWaveClusters] = {};
    int64_t clusters() const { return (neurons + kClusterNeurons - 1) / kClusterNeurons; }
    int64_t cluster_neurons(int64_t c) const {
      return neurons - c * kClusterNeurons < kClusterNeurons ? neurons - c * kClusterNeurons : kClusterNeurons;
    }
  };

  Status run_wave(const Wave& wave, int64_t first_row, float* out);
  void multiply_records(const Wave& wave, DType type, size_t offset, float* y);
  void pack(const Wave& wave);
  void pack_token(const Wave& wave, int64_t token);
  void add_down(const Wave& wave, float* out);
  void add_columns(const Wave& wave, int64_t first, int64_t n, int worker, float* out);
  void add_cluster(const Wave& wave, int64_t c, int64_t first, int64_t n, const ClusterScratch& scratch, float* sums);
  void count_uses(const Wave& wave);

  model::Multiplier& multiplier_;
  const kernels::Kernels& kernels_;
  sys::ThreadPool& threads_;
  const ClusterMath& math_;
  ClusterSource& source_;
  model::Scratch scratch_;
  int64_t max_tokens_;
  Buffers buffers_;
  std::vector<ClusterScratch> workers_;
  uint64_t active_ = 0;
};

}  // namespace stoke::pipeline
