// The FFN of ReLU-family models from a neuron store: only neurons that fire are read and computed, exactly.
//
// THE ARITHMETIC (the exactness contract): for one token, g_i = gate_i . x and u_i = up_i . x by the ordinary products
// (kernels.h); a_i = relu(g_i); h_i = a_i * u_i (ReGLU) or a_i * relu(u_i) (dReLU); for each cluster of kClusterNeurons
// neurons partial[d] = fma(h_i, down_i[d], .) in FP32, i ascending, from zero; out[d] = 0 + partial 0 + partial 1 +
// ..., and, where the store has factors, factor[d] times that. Experts: each by itself so, then added with the router's
// weights in ascending number. h is not quantised. Terms that are zero are left out, which changes nothing. So few
// tokens or many, resident or streamed, and any number of threads give the same bits. Few tokens (SparseDecoder) fetch
// what fires; many, and stores whose gates lie in the records, bring whole clusters (SparseStream). Layers without
// records are FullFfn's. Thread role: the control thread; work is split over the pool. Ownership: its scratch; parts
// outlive it. After construction nothing is allocated (but for the text of a failure). Errors: the weight source's
// (kCancelled among them); kIo and kCorrupt naming layer, neuron, file and offset. Then nothing is in flight or leased,
// and it can be used again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/expert_guess.h"
#include "model/ffn.h"
#include "model/router.h"
#include "pipeline/cluster_ring.h"
#include "pipeline/firing_log.h"
#include "pipeline/sparse_decoder.h"
#include "pipeline/sparse_stream.h"

namespace stoke::pipeline {

struct SparseOptions {
  int64_t max_tokens = 512;
  int64_t decode_tokens = 4;                                // up to so many, records are fetched singly
  FetchOptions fetch;                                       // record_bytes_max is filled in
  int64_t ring_clusters = 2 * SparseStream::kWaveClusters;  // buffers of whole clusters that are read ahead
  // For the paper's ablation (engine/ablation.h); fetch.use_cache belongs to it, too.
  DecoderSwitches switches;
  bool whole_layers = false;  // always bring whole clusters
};

struct SparseCounts {
  FetchCounts fetch;          // of few tokens; lookups are the neurons that fired
  uint64_t neurons = 0;       // whose gates were computed for few tokens
  uint64_t stream_reads = 0;  // of whole clusters
  uint64_t stream_bytes = 0;
  int64_t stall_ns = 0;  // of the queue, all its clients together
};

class SparseFfn final : public model::Ffn {
 public:
  // tables: by SparseFfnWeights::table. queue: null where every neuron is hot. cache: null there, and without
  // use_cache. Requires: dim a multiple of 32 and of the types' blocks; no shared expert in layers with records.
  struct Parts {
    const model::Config& config;
    const model::Weights& weights;
    model::Multiplier& multiplier;
    std::span<const NeuronTable> tables;
    cache::UnitCache* cache = nullptr;
    IoQueue* queue = nullptr;
    FiringLog* firings = nullptr;  // told of every pass of few tokens
  };
  SparseFfn(const Parts& parts, const SparseOptions& options);
  // Bytes that it takes, all scratch and read buffers together; the cache's arena and hot records are the caller's.
  static size_t bytes(const Parts& parts, const SparseOptions& options);

  void prepare(int layer) override;
  Status forward(int layer, const float* x, int64_t tokens, float* out) override;
  void discard_scratch() override;

  SparseCounts counts() const;

 private:
  struct Buffers {
    std::byte* acts = nullptr;        // of the batch
    float* x = nullptr;               // tokens gathered by expert
    std::byte* group_acts = nullptr;  // and their quantised form
    int64_t group_acts_bytes = 0;
    float* y = nullptr;  // (max_tokens, dim): one expert's sums
  };
  static Buffers layout(model::ScratchLayout& at, const Parts& parts, const SparseOptions& options);
  static DecoderShape decoder_shape(const Parts& parts, const SparseOptions& options);
  static SparseOptions complete(const Parts& parts, const SparseOptions& options);
  static ClusterRing::Options ring_options(const SparseOptions& options);
  static bool needs_rest(const Parts& parts);

  const NeuronTable& table(int layer) const;
  bool fetches(const NeuronTable& table, int64_t tokens) const;
  Status decode(const NeuronTable& table, size_t groups);
  Status dense(int layer, const kernels::ActView& x, float* out);
  void expect_layer(int layer);
  Status experts(int layer, const kernels::ActView& x, float* out);
  Status fetch_experts(const NeuronTable& table, const model::SparseFfnWeights& w, const kernels::ActView& x,
                       int64_t uses, float* out);
  Status stream_experts(const NeuronTable& table, const model::SparseFfnWeights& w, const kernels::ActView& x,
                        int64_t uses, float* out);
  void apply_factors(const float* factors, int64_t tokens, float* out);
  int64_t group_end(int64_t begin, int64_t all) const;
  TokenGroup group_of(const model::SparseFfnWeights& w, const kernels::ActView& x, int64_t begin, int64_t end,
                      int64_t row, std::byte* acts);

  const model::Config& config_;
  const model::Weights& weights_;
  model::Multiplier& multiplier_;
  std::span<const NeuronTable> tables_;
  IoQueue* queue_;
  FiringLog* firings_;
  SparseOptions options_;
  ClusterMath math_;
  model::Scratch scratch_;
  Buffers buffers_;
  model::Router router_;
  model::ExpertGuess guess_;
  std::unique_ptr<model::FullFfn> rest_;
  ClusterRing ring_;
  SparseDecoder decoder_;
  SparseStream stream_;
  std::vector<TokenGroup> groups_;
};

}  // namespace stoke::pipeline
