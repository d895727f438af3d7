#include "pipeline/sparse_decoder.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace stoke::pipeline {
namespace {

// A tile of gate rows takes about 30 us of a core at the speed of memory; more would keep worker 0 from the disk.
constexpr int64_t kTileBytes = 640 << 10;
// Tiles that a job's gate is cut into at most, on average; what a source gives in smaller pieces the control thread
// computes itself.
constexpr size_t kTilesPerJob = 8;
constexpr int64_t kSumColumns = 512;

size_t tile_capacity(size_t jobs) { return jobs * kTilesPerJob; }
size_t jobs_of(const DecoderShape& shape) { return static_cast<size_t>(shape.groups * shape.clusters); }

}  // namespace

SparseDecoder::SparseDecoder(const Parts& parts, const DecoderShape& shape, const FetchOptions& fetch,
                             DecoderSwitches switches)
    : multiplier_(parts.multiplier),
      kernels_(parts.multiplier.kernels()),
      threads_(parts.multiplier.threads()),
      math_(parts.math),
      queue_(parts.queue),
      shape_(shape),
      switches_(switches),
      scratch_([&] {
        model::ScratchLayout count;
        layout(count, threads_, shape, nullptr);
        return count.bytes();
      }()),
      board_(jobs_of(shape), tile_capacity(jobs_of(shape)), model::kMaxLeases) {
  model::ScratchLayout at(scratch_.data());
  buffers_ = layout(at, threads_, shape, &workers_);
  held_back_.reserve(jobs_of(shape));
  if (queue_ != nullptr) {
    fetcher_ = std::make_unique<RecordFetcher>(fetch, parts.cache, *queue_, board_, jobs_of(shape));
  }
}

size_t SparseDecoder::bytes(const sys::ThreadPool& threads, const DecoderShape& shape, const FetchOptions& fetch,
                            bool streams) {
  model::ScratchLayout count;
  layout(count, threads, shape, nullptr);
  const size_t jobs = jobs_of(shape);
  return count.bytes() + LayerBoard::bytes(jobs, tile_capacity(jobs), model::kMaxLeases) +
         (streams ? RecordFetcher::bytes(fetch) : 0);
}

SparseDecoder::Buffers SparseDecoder::layout(model::ScratchLayout& at, const sys::ThreadPool& threads,
                                             const DecoderShape& shape, std::vector<ClusterScratch>* workers) {
  const auto jobs = static_cast<int64_t>(jobs_of(shape));
  Buffers b;
  b.jobs = at.take<ClusterJob>(jobs);
  b.gates = at.take<float>(shape.uses * shape.clusters * kClusterNeurons);
  b.partials = at.take<float>(shape.uses * shape.clusters * shape.dim);
  b.index = at.take<uint8_t>(jobs * kClusterNeurons);
  b.records = at.take<const std::byte*>(jobs * kClusterNeurons);
  b.places = at.take<int32_t>(jobs * kClusterNeurons);
  b.fresh = at.take<uint8_t>(jobs * kClusterNeurons);
  b.tiles = at.take<Tile>(static_cast<int64_t>(tile_capacity(jobs_of(shape))));
  for (int worker = 0; worker < threads.size(); ++worker) {
    const ClusterScratch scratch = layout_cluster_scratch(at, shape.tokens, shape.up_row_bytes);
    if (workers != nullptr) workers->push_back(scratch);
  }
  return b;
}

void SparseDecoder::set_up(const NeuronTable& table, std::span<const TokenGroup> groups) {
  table_ = &table;
  groups_ = groups;
  clusters_ = (table.expert_neurons() + kClusterNeurons - 1) / kClusterNeurons;
  jobs_ = static_cast<int32_t>(clusters_ * static_cast<int64_t>(groups.size()));
  CHECK(static_cast<size_t>(jobs_) <= jobs_of(shape_));
  board_.reset();
  for (int32_t j = 0; j < jobs_; ++j) {
    const TokenGroup& group = groups[static_cast<size_t>(j / clusters_)];
    const int64_t cluster = j % clusters_;
    const int64_t begin = cluster * kClusterNeurons;
    const int64_t use = group.first_use * clusters_;
    buffers_.jobs[j] = {
        .group = &group,
        .first_neuron = group.first_neuron + begin,
        .neurons = static_cast<int32_t>(std::min(kClusterNeurons, table.expert_neurons() - begin)),
        .gate = buffers_.gates + (use + cluster * group.x.tokens) * kClusterNeurons,
        .partial = buffers_.partials + (use + cluster) * shape_.dim,
        .partial_stride = clusters_ * shape_.dim,
        .index = buffers_.index + j * kClusterNeurons,
        .records = buffers_.records + j * kClusterNeurons,
        .places = buffers_.places + j * kClusterNeurons,
        .fresh = buffers_.fresh + j * kClusterNeurons,
    };
    board_.set_gate_rows(j, buffers_.jobs[j].neurons);
  }
  if (fetcher_ != nullptr) fetcher_->begin(table, {buffers_.jobs, static_cast<size_t>(jobs_)});
  CHECK(fetcher_ != nullptr || table.all_hot());
  board_.hold(switches_.synchronous_reads || switches_.stage_barriers);
  gated_ = finished_ = tiles_ = 0;
  gate_group_ = 0;
  gate_row_ = 0;
  held_back_.clear();
  status_ = ok_status();
}

Status SparseDecoder::forward(const NeuronTable& table, std::span<const TokenGroup> groups) {
  set_up(table, groups);
  auto run = [this](int worker) { worker == 0 ? control() : work(worker); };
  threads_.run(run);
  release_leases(true);
  if (!status_.ok() && fetcher_ != nullptr) fetcher_->abandon();
  neurons_ += static_cast<uint64_t>(table.expert_neurons()) * groups.size();
  return status_;
}

void SparseDecoder::work(int worker) {
  Idler idler;
  while (!board_.over()) {
    if (do_one(worker) || multiplier_.source().help()) {
      idler.worked();
    } else {
      idler.rest();
    }
  }
}

// Worker 0: feeds the others, drives the disk, and computes in between.
void SparseDecoder::control() {
  Idler idler;
  if (queue_ != nullptr) queue_->hold_background(true);
  while (true) {
    if (queue_ != nullptr) queue_->pump();
    collect_gated();
    if (collect_finished()) break;
    control_reads();
    if (status_.ok()) status_ = supply_gates();
    if (!status_.ok()) break;
    if (do_one(0) || multiplier_.source().help()) {
      idler.worked();
    } else if (fetcher_ != nullptr && fetcher_->reading()) {
      queue_->wait();
    } else {
      idler.rest();
    }
  }
  board_.end();
  if (queue_ != nullptr) queue_->hold_background(false);
}

bool SparseDecoder::do_one(int worker) {
  const int32_t tile = board_.tiles.take();
  if (tile >= 0) {
    compute_tile(buffers_.tiles[tile], worker);
    return true;
  }
  return !board_.held() && do_ready(worker);
}

bool SparseDecoder::do_ready(int worker) {
  int32_t job = board_.ready_cached.take();
  if (job < 0) job = board_.ready_read.take();
  if (job < 0) return false;
  compute_job(job, worker);
  return true;
}

void SparseDecoder::compute_tile(const Tile& tile, int worker) {
  const sys::TraceSpan span(threads_.trace(), worker, sys::TraceKind::kGates, tile.job, tile.count);
  const ClusterJob& job = buffers_.jobs[tile.job];
  const RowsView& leased = leases_[static_cast<size_t>(tile.lease)].rows;
  RowsView rows = leased;
  rows.rows = {tile.first, tile.first + tile.count};
  rows.data = tile.data;
  kernels_.matmul({.w = rows,
                   .x = job.group->x,
                   .y = job.gate + tile.first,
                   .y_stride = kClusterNeurons,
                   .scratch = workers_[static_cast<size_t>(worker)].kernel});
  board_.count_lease_rows(tile.lease, tile.count);
  if (board_.count_gate_rows(tile.job, tile.count)) finish_gate(tile.job, worker);
}

// What is all hot goes on at once: its inputs are in this core's cache.
void SparseDecoder::finish_gate(int32_t number, int worker) {
  ClusterJob& job = buffers_.jobs[number];
  math_.select(job);
  job.fired = job.active > 0;
  if (fetcher_ == nullptr || (!switches_.synchronous_reads && !switches_.stage_barriers)) {
    if (ClusterMath::place_hot(*table_, job)) return compute_job(number, worker);
  }
  board_.gated.push(number);
}

void SparseDecoder::compute_job(int32_t number, int worker) {
  ClusterJob& job = buffers_.jobs[number];
  job.damaged = job.fetched && !RecordFetcher::check_fresh(*table_, job);
  if (job.fired && !job.damaged) {
    const sys::TraceSpan span(threads_.trace(), worker, sys::TraceKind::kCluster, number, job.active);
    math_.compute(*table_, job, workers_[static_cast<size_t>(worker)]);
  }
  board_.finished.push(number);
}

void SparseDecoder::collect_gated() {
  for (int32_t job = board_.gated.take(); job >= 0; job = board_.gated.take()) {
    ++gated_;
    if (switches_.stage_barriers) {
      held_back_.push_back(job);
    } else {
      fetcher_->admit(job);
    }
  }
  if (gated_ < jobs_) return;
  for (const int32_t job : held_back_) fetcher_->admit(job);
  held_back_.clear();
}

// True where that was the last.
bool SparseDecoder::collect_finished() {
  for (int32_t job = board_.finished.take(); job >= 0; job = board_.finished.take()) {
    if (buffers_.jobs[job].damaged) {
      if (status_.ok()) fetcher_->read_again(job);
      continue;
    }
    active_ += static_cast<uint64_t>(buffers_.jobs[job].active);
    if (buffers_.jobs[job].fetched) fetcher_->finish(job);
    ++finished_;
  }
  return finished_ == jobs_;
}

void SparseDecoder::control_reads() {
  if (fetcher_ == nullptr) return;
  fetcher_->advance();
  queue_->pump();
  if (!fetcher_->status().ok()) status_ = fetcher_->status();
  if (gated_ == jobs_ && fetcher_->all_asked()) queue_->hold_background(false);
  if (!switches_.synchronous_reads && !switches_.stage_barriers) return;
  // Held until all reads have come, or, in a cache that does not hold them all, until nothing more can be read.
  const bool all_known = gated_ == jobs_;
  board_.hold(!all_known || fetcher_->reading());
}

// Leases gate rows ahead of the workers, so that each finds a tile and one more waits.
Status SparseDecoder::supply_gates() {
  release_leases(false);
  const auto enough = 2 * static_cast<size_t>(threads_.size());
  while (gate_group_ < groups_.size() && board_.tiles.waiting() < enough) {
    const auto free = std::find_if(leases_.begin(), leases_.end(), [](const Lease& l) { return !l.held; });
    if (free == leases_.end()) return ok_status();
    const TokenGroup& group = groups_[gate_group_];
    // What is leased is computed and given back first: a source with few slots may have none to wait for.
    const bool waits = !multiplier_.source().at_hand(group.gate.id, group.gate.rows.begin + gate_row_);
    if (waits && leasing()) return ok_status();
    STOKE_ASSIGN(free->rows,
                 multiplier_.source().acquire(group.gate.id, {group.gate.rows.begin + gate_row_, group.gate.rows.end}));
    free->id = group.gate.id;
    free->held = true;
    const auto lease = static_cast<int32_t>(free - leases_.begin());
    const int64_t rows = free->rows.rows.size();
    board_.set_lease_rows(lease, static_cast<int32_t>(rows));
    cut_tiles(group, lease, gate_row_);
    gate_row_ += rows;
    if (gate_row_ < group.gate.rows.size()) continue;
    ++gate_group_;
    gate_row_ = 0;
  }
  return ok_status();
}

bool SparseDecoder::leasing() const {
  return std::any_of(leases_.begin(), leases_.end(), [](const Lease& l) { return l.held; });
}

// Tiles end where clusters do.
void SparseDecoder::cut_tiles(const TokenGroup& group, int32_t lease, int64_t first_row) {
  const RowsView& rows = leases_[static_cast<size_t>(lease)].rows;
  const int64_t most = std::clamp(kTileBytes / static_cast<int64_t>(rows.row_bytes) / kernels::kRowTile, int64_t{1},
                                  kClusterNeurons / kernels::kRowTile) *
                       kernels::kRowTile;
  const auto first_job = static_cast<int32_t>((&group - groups_.data()) * clusters_);
  const int64_t end = first_row + rows.rows.size();
  for (int64_t row = first_row; row < end;) {
    const int64_t cluster = row / kClusterNeurons;
    const int64_t stop = std::min({end, (cluster + 1) * kClusterNeurons, row + most});
    push_tile({.job = first_job + static_cast<int32_t>(cluster),
               .first = static_cast<int32_t>(row - cluster * kClusterNeurons),
               .count = static_cast<int32_t>(stop - row),
               .lease = lease,
               .data = rows.data + static_cast<size_t>(row - first_row) * rows.row_bytes});
    row = stop;
  }
}

void SparseDecoder::push_tile(const Tile& tile) {
  if (static_cast<size_t>(tiles_) == board_.tiles.capacity()) return compute_tile(tile, 0);
  buffers_.tiles[tiles_] = tile;
  board_.tiles.push(tiles_++);
}

void SparseDecoder::release_leases(bool all) {
  for (size_t i = 0; i < leases_.size(); ++i) {
    if (!leases_[i].held || (!all && !board_.lease_done(static_cast<int32_t>(i)))) continue;
    multiplier_.source().release(leases_[i].id, leases_[i].rows);
    leases_[i].held = false;
  }
}

// out = ((+0) + partial[0] + partial[1] + ...) * factors for some columns of one use; clusters where nothing fired are
// left out.
void SparseDecoder::sum_columns(int64_t use, const ClusterJob* jobs, const float* factors, RowRange columns,
                                float* out) const {
  const float* partials = buffers_.partials + use * clusters_ * shape_.dim + columns.begin;
  std::fill_n(out, columns.size(), 0.0f);
  for (int64_t c = 0; c < clusters_; ++c) {
    if (jobs[c].fired) kernels_.add(out, partials + c * shape_.dim, columns.size());
  }
  if (factors == nullptr) return;
  for (int64_t d = 0; d < columns.size(); ++d) out[d] *= factors[columns.begin + d];
}

void SparseDecoder::sum(const float* factors, float* out) {
  const int64_t tokens = groups_[0].x.tokens;
  threads_.parallel_for(shape_.dim, kSumColumns, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < tokens; ++t) {
      sum_columns(t, buffers_.jobs, factors, {begin, end}, out + t * shape_.dim + begin);
    }
  });
}

void SparseDecoder::sum(const model::ExpertUse* uses, int64_t count, const float* factors, float* out) {
  threads_.parallel_for(shape_.dim, kSumColumns, [&](int64_t begin, int64_t end, int) {
    std::array<float, kSumColumns> y;
    for (int64_t first = begin; first < end; first += kSumColumns) {
      const RowRange columns{first, std::min(first + kSumColumns, end)};
      size_t group = 0;
      for (int64_t u = 0; u < count; ++u) {
        while (u >= groups_[group].first_use + groups_[group].x.tokens) ++group;
        const ClusterJob* jobs = buffers_.jobs + static_cast<int64_t>(group) * clusters_;
        const float* factor = factors == nullptr ? nullptr : factors + uses[u].expert * shape_.dim;
        sum_columns(u, jobs, factor, columns, y.data());
        kernels_.axpy(out + uses[u].token * shape_.dim + first, y.data(), uses[u].weight, columns.size());
      }
    }
  });
}

FetchCounts SparseDecoder::counts() const {
  FetchCounts counts = fetcher_ == nullptr ? FetchCounts() : fetcher_->counts();
  counts.hot_hits += active_ - counts.lookups;  // jobs that are all hot never meet the fetcher
  counts.lookups = active_;
  return counts;
}

}  // namespace stoke::pipeline
