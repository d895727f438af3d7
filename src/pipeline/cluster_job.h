// One cluster of neurons in decoding: which of them fire, and what they add. The unit of work of the sparse FFN.
//
// THE ARITHMETIC (the exactness contract; pipeline/sparse_ffn.h): a = relu(gate . x), or for FATReLU gate . x where it
// is above the threshold; h = a * (up . x), or a * relu(up . x) for dReLU; partial[d] = fma(h_i, down_i[d], .) over the
// cluster's neurons ascending, from zero. Neurons whose a or h is zero are skipped: their terms are exact zeros. Thread
// role: a job is handled by one thread at a time (layer_board.h hands it on). Ownership: a job is views into the
// decoder's scratch; a worker's scratch is its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "model/config.h"
#include "model/scratch.h"
#include "model/weights.h"
#include "pipeline/neuron_table.h"

namespace stoke::pipeline {

// The tokens that use one network: the layer's, or one expert's.
struct TokenGroup {
  int64_t first_neuron = 0;  // of the network, in the table
  int64_t first_use = 0;     // row of its first token among all uses
  kernels::ActView x;
  model::MatrixSlice gate;  // not valid where gates are parts of the records
  model::NamedActivation activation;
};

struct ClusterJob {
  const TokenGroup* group = nullptr;
  int64_t first_neuron = 0;  // of the table
  int32_t neurons = 0;       // at most kClusterNeurons
  float* gate = nullptr;     // (tokens, kClusterNeurons): gate . x
  float* partial = nullptr;  // token t's lies at partial + t * partial_stride
  int64_t partial_stride = 0;
  int32_t active = 0;                   // neurons that fire for any of the tokens
  uint8_t* index = nullptr;             // (active) their numbers in the cluster, ascending
  const std::byte** records = nullptr;  // (active) where their records are; null: not at hand
  int32_t* places = nullptr;            // (active) what holds them (record_fetcher.h)
  uint8_t* fresh = nullptr;             // (active) that were read for this job and not yet held against their checksum
  int32_t missing = 0;                  // records that are being read
  bool damaged = false;                 // a fresh one is not what it should be
  bool fetched = false;                 // its records are held by the fetcher
  bool fired = false;                   // partial holds sums; otherwise they are zero and not written

  int64_t neuron(int32_t i) const { return first_neuron + index[i]; }
  int64_t tokens() const { return group->x.tokens; }
  // For how many of the tokens neuron i of the cluster fires.
  int64_t firings(int32_t i) const {
    int64_t count = 0;
    for (int64_t t = 0; t < tokens(); ++t) count += group->activation.passes(gate[t * kClusterNeurons + i]) ? 1 : 0;
    return count;
  }
};

// One worker's.
struct ClusterScratch {
  std::byte* kernel = nullptr;        // kernels::scratch_bytes()
  std::byte* stage = nullptr;         // up rows side by side, for several tokens
  float* up = nullptr;                // (tokens, kClusterNeurons)
  float* h = nullptr;                 // (kClusterNeurons)
  const std::byte** rows = nullptr;   // (kClusterNeurons)
  const uint16_t** scales = nullptr;  // (kClusterNeurons)
  const uint16_t** mins = nullptr;    // (kClusterNeurons)
};
ClusterScratch layout_cluster_scratch(model::ScratchLayout& at, int64_t tokens, size_t up_row_bytes);

class ClusterMath {
 public:
  ClusterMath(const kernels::Kernels& kernels, const model::NamedActivation& activation)
      : kernels_(kernels), activation_(activation) {}

  // The list of neurons that fire.
  void select(ClusterJob& job) const;
  // Looks the active neurons up among the hot ones. True where that found all of them.
  static bool place_hot(const NeuronTable& table, ClusterJob& job);
  // Up, h and down of the active neurons. Requires: all their records are at hand.
  void compute(const NeuronTable& table, const ClusterJob& job, const ClusterScratch& scratch) const;

  // h of one neuron.
  float activate(float gate, float u) const {
    const bool dual = activation_.kind == model::Activation::kDrelu;
    return activation_.passes(gate) ? gate * (dual && u <= 0.0f ? 0.0f : u) : 0.0f;
  }

 private:
  void multiply_up(const NeuronTable& table, const ClusterJob& job, const ClusterScratch& scratch) const;
  void add_down(const NeuronTable& table, const ClusterJob& job, int64_t token, const ClusterScratch& scratch) const;

  const kernels::Kernels& kernels_;
  model::NamedActivation activation_;
};

}  // namespace stoke::pipeline
