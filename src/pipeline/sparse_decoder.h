// The sparse FFN of a layer for few tokens: gate first, then only what fires, cluster by cluster (paper, section 4.3).
//
// A job is one cluster. Any worker computes gates, tile by tile of leased rows; the control thread, between its own
// tiles, takes finished clusters, has their active neurons fetched (record_fetcher.h) and polls the reads; any worker
// computes up, h and down of a cluster whose records are at hand, cached ones first. There is no barrier between these
// stages: the only one is the end of the layer, where the clusters' partial sums are added in ascending order.
// Gates go before ready clusters: the sooner they are known, the sooner the disk has work.
// Thread role: the control thread; work is split over the pool. Ownership: its scratch; the rest outlives it. After
// construction nothing is allocated (but for the text of a failure).
// Errors: the weight source's and the fetcher's; then everything in flight has ended and nothing stays leased.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/matmul.h"
#include "model/router.h"
#include "pipeline/cluster_job.h"
#include "pipeline/layer_board.h"
#include "pipeline/record_fetcher.h"

namespace stoke::pipeline {

struct DecoderShape {
  int64_t tokens = 1;    // the most in one call
  int64_t uses = 1;      // tokens times experts that each takes
  int64_t groups = 1;    // the most in one call
  int64_t clusters = 1;  // of the largest network
  int64_t dim = 0;
  size_t up_row_bytes = 0;
};

// For the paper's ablation.
struct DecoderSwitches {
  bool synchronous_reads = false;  // up and down wait until the layer's reads have come
  bool stage_barriers = false;     // reads wait until all gates are known, up and down wait for the reads
};

class SparseDecoder {
 public:
  // cache and queue may be null where every neuron of every table is hot.
  struct Parts {
    model::Multiplier& multiplier;
    const ClusterMath& math;
    cache::UnitCache* cache = nullptr;
    IoQueue* queue = nullptr;
  };
  SparseDecoder(const Parts& parts, const DecoderShape& shape, const FetchOptions& fetch, DecoderSwitches switches);
  static size_t bytes(const sys::ThreadPool& threads, const DecoderShape& shape, const FetchOptions& fetch,
                      bool streams);

  // Computes all clusters of all groups; their sums are then taken by sum().
  Status forward(const NeuronTable& table, std::span<const TokenGroup> groups);
  // out[t] = the only group's sums. (tokens, dim). factors: (dim) or null.
  void sum(const float* factors, float* out);
  // out[t] += weight * its expert's sums, in ascending expert: uses as the router sorted them. factors: (experts, dim)
  // or null.
  void sum(const model::ExpertUse* uses, int64_t count, const float* factors, float* out);

  // Of the last forward(), in ascending neurons; their gates stand until the next.
  std::span<const ClusterJob> jobs() const { return {buffers_.jobs, static_cast<size_t>(jobs_)}; }
  FetchCounts counts() const;
  uint64_t active() const { return active_; }
  uint64_t neurons() const { return neurons_; }

 private:
  // Gate rows [first, first + count) of a job's cluster.
  struct Tile {
    int32_t job = 0;
    int32_t first = 0;
    int32_t count = 0;
    int32_t lease = 0;
    const std::byte* data = nullptr;
  };
  struct Lease {
    model::MatrixId id;
    RowsView rows;
    bool held = false;
  };
  struct Buffers {
    ClusterJob* jobs = nullptr;
    float* gates = nullptr;     // (uses, clusters, kClusterNeurons)
    float* partials = nullptr;  // (uses, clusters, dim)
    uint8_t* index = nullptr;   // (jobs, kClusterNeurons), and so on
    const std::byte** records = nullptr;
    int32_t* places = nullptr;
    uint8_t* fresh = nullptr;
    Tile* tiles = nullptr;
  };
  static Buffers layout(model::ScratchLayout& at, const sys::ThreadPool& threads, const DecoderShape& shape,
                        std::vector<ClusterScratch>* workers);

  void set_up(const NeuronTable& table, std::span<const TokenGroup> groups);
  void control();
  void work(int worker);
  bool do_one(int worker);
  bool do_ready(int worker);
  void control_reads();
  Status supply_gates();
  bool leasing() const;
  void cut_tiles(const TokenGroup& group, int32_t lease, int64_t first_row);
  void push_tile(const Tile& tile);
  void release_leases(bool all);
  void compute_tile(const Tile& tile, int worker);
  void finish_gate(int32_t job, int worker);
  void compute_job(int32_t job, int worker);
  void collect_gated();
  bool collect_finished();
  void sum_columns(int64_t use, const ClusterJob* jobs, const float* factors, RowRange columns, float* out) const;

  model::Multiplier& multiplier_;
  const kernels::Kernels& kernels_;
  sys::ThreadPool& threads_;
  const ClusterMath& math_;
  IoQueue* queue_;
  DecoderShape shape_;
  DecoderSwitches switches_;
  model::Scratch scratch_;
  Buffers buffers_;
  std::vector<ClusterScratch> workers_;
  LayerBoard board_;
  std::unique_ptr<RecordFetcher> fetcher_;  // null where everything is hot

  // The layer being computed.
  const NeuronTable* table_ = nullptr;
  std::span<const TokenGroup> groups_;
  int64_t clusters_ = 0;
  int32_t jobs_ = 0;
  int32_t gated_ = 0;  // jobs whose gates the control thread knows to be done
  int32_t finished_ = 0;
  int32_t tiles_ = 0;      // cut so far
  size_t gate_group_ = 0;  // where the next lease begins
  int64_t gate_row_ = 0;
  std::array<Lease, model::kMaxLeases> leases_;
  std::vector<int32_t> held_back_;  // gated jobs that wait for a barrier
  Status status_;
  uint64_t active_ = 0;
  uint64_t neurons_ = 0;
};

}  // namespace stoke::pipeline
