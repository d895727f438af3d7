#include "engine/sparse_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <unordered_set>

#include "base/check.h"
#include "formats/neuron_store.h"
#include "pipeline/stream_source.h"
#include "sys/checksum.h"
#include "sys/profile.h"
#include "tensor/half.h"

namespace stoke::engine {
namespace {

constexpr int64_t kLeastSlots = 4096;
// Without a cache: the misses of a 7B model's layer together, so that its reads need not wait for its products.
constexpr int kUncachedRecords = 2048;

// A source that has nothing: where only the size of something is asked.
class NoSource final : public model::WeightSource {
 public:
  const model::MatrixInfo& matrix(model::MatrixId) const override { return info_; }
  Result<RowsView> acquire(model::MatrixId, RowRange) override { return Status(Code::kInvalid, "no weights"); }
  void release(model::MatrixId, const RowsView&) override {}
  Status read_row(model::MatrixId, int64_t, std::byte*) override { return Status(Code::kInvalid, "no weights"); }

 private:
  model::MatrixInfo info_;
};

// As `stoke profile` measured the disk that holds the model; the planner's own figures where it did not.
plan::Disk measured_disk(const formats::ModelFile& model) {
  constexpr int kDepth = 32;
  const std::string folder = std::filesystem::absolute(model.files.front()).parent_path();
  const Result<sys::MachineProfile> profile = sys::load_profile(sys::profile_key(folder));
  std::vector<plan::DiskSample> samples;
  if (profile.ok() && profile->disk) {
    for (const sys::DiskRate& rate : profile->disk->random) {
      if (rate.depth == kDepth) samples.push_back({rate.request_bytes, rate.bytes_per_s});
    }
  }
  return plan::fit_disk(samples);
}

}  // namespace

SparseStore::~SparseStore() = default;

Result<std::unique_ptr<SparseStore>> SparseStore::open(const formats::ModelFile& file, const ModelPlan& loaded,
                                                       const Ablation& ablation) {
  std::unique_ptr<SparseStore> out(new SparseStore(file, loaded, ablation));
  for (const RecordTable& records : loaded.tables) {
    out->tables_.push_back({.records = records, .first_unit = out->units_});
    out->units_ += records.neurons;
    out->slot_bytes_ = std::max(out->slot_bytes_, records.record.record_bytes);
  }
  STOKE_TRY(out->load_checksums());
  STOKE_TRY(out->load_scales());
  return out;
}

Status SparseStore::log_firings(const std::string& path) {
  const bool bundles = std::ranges::any_of(
      tables_, [](const pipeline::NeuronTable& table) { return table.records.record.layout != RecordLayout::kSplit; });
  if (ablation_.whole_layers || bundles) {
    return Status(Code::kInvalid,
                  fmt::format("{}: no firings to write: {} brings whole layers and looks no neuron up", file_.path,
                              bundles ? "a store of layout bundle" : "the ablation 'dense'"));
  }
  STOKE_ASSIGN(firings_, pipeline::FiringLog::create(path, tables_));
  return ok_status();
}

Status SparseStore::load_checksums() {
  STOKE_ASSIGN(const formats::NeuronStore store, formats::read_neuron_store(file_));
  STOKE_ASSIGN(auto bytes, formats::DiskFiles().open(file_.files.front()));
  STOKE_ASSIGN(checksums_, formats::load_store_checksums(*bytes, store));
  std::vector<sys::CheckedRange> ranges;
  for (const formats::MatrixUnits& units : store.matrices) {
    const formats::Extent& extent = file_.tensors[units.tensor].extent;
    ranges.push_back({.offset = extent.offset,
                      .bytes = extent.bytes,
                      .unit_bytes = units.unit_bytes,
                      .checksums = std::span(checksums_.matrices)
                                       .subspan(static_cast<size_t>(units.first), static_cast<size_t>(units.count))});
  }
  matrix_checks_ = sys::CheckedRanges(std::move(ranges));
  STOKE_TRY(check_vectors(*bytes, store));
  if (ablation_.hot) {
    STOKE_ASSIGN(rates_, formats::load_store_firing(*bytes, store));
    hot_first_ = store.hot_first;
  }
  for (pipeline::NeuronTable& table : tables_) {
    table.checksums =
        std::span(checksums_.records)
            .subspan(static_cast<size_t>(table.records.first_checksum), static_cast<size_t>(table.records.neurons));
  }
  return ok_status();
}

// Norms, biases and factors were read by the loader, which knows no checksums: they are read once more. Matrices are
// held against theirs when they are read.
Status SparseStore::check_vectors(formats::ByteSource& file, const formats::NeuronStore& store) const {
  std::unordered_set<std::string_view> matrices;
  for (const MatrixSpec& spec : loaded_.plan.matrices) matrices.insert(spec.name);
  std::vector<std::byte> bytes;
  for (const formats::MatrixUnits& units : store.matrices) {
    const formats::TensorEntry& tensor = file_.tensors[units.tensor];
    if (matrices.contains(tensor.name)) continue;
    bytes.resize(tensor.extent.bytes);
    STOKE_TRY(file.read(tensor.extent.offset, bytes));
    const auto damaged = matrix_checks_.first_damaged(bytes.data(), tensor.extent.offset, bytes.size());
    if (damaged) return pipeline::damaged_matrix(file.path(), tensor.name, *damaged);
  }
  return ok_status();
}

// Scales and minima of codes are matrices of the plan that lie apart: they stay in memory here.
Status SparseStore::load_scales() {
  const auto spec_of = [&](const model::MatrixSlice& slice) -> const MatrixSpec& {
    return loaded_.plan.matrices[static_cast<size_t>(slice.id.index)];
  };
  size_t all = 0;
  for (const model::LayerWeights& w : loaded_.weights.layers) {
    for (const model::MatrixSlice& slice : {w.sparse.scales, w.sparse.mins}) {
      if (slice.valid()) all += static_cast<size_t>(spec_of(slice).info.rows) * spec_of(slice).info.row_bytes;
    }
  }
  scales_.resize(all);
  size_t at = 0;
  STOKE_ASSIGN(auto file, formats::DiskFiles().open(file_.files.front()));
  for (const model::LayerWeights& w : loaded_.weights.layers) {
    if (!w.sparse.valid()) continue;
    pipeline::NeuronTable& table = tables_[static_cast<size_t>(w.sparse.table)];
    const auto load = [&](const model::MatrixSlice& slice, const uint16_t** to) -> Status {
      if (!slice.valid()) return ok_status();
      const MatrixSpec& spec = spec_of(slice);
      const size_t bytes = static_cast<size_t>(spec.info.rows) * spec.info.row_bytes;
      const uint64_t offset = spec.pieces.front().extent.offset;
      STOKE_TRY(file->read(offset, std::span(scales_).subspan(at, bytes)));
      const auto damaged = matrix_checks_.first_damaged(scales_.data() + at, offset, bytes);
      if (damaged) return pipeline::damaged_matrix(file->path(), spec.name, *damaged);
      *to = reinterpret_cast<const uint16_t*>(scales_.data() + at);
      at += bytes;
      return ok_status();
    };
    STOKE_TRY(load(w.sparse.scales, &table.scales));
    STOKE_TRY(load(w.sparse.mins, &table.mins));
  }
  return ok_status();
}

int64_t SparseStore::record_bytes() const { return static_cast<int64_t>(loaded_.record_bytes()); }

int64_t SparseStore::slot_cost() const { return static_cast<int64_t>(slot_bytes_) + 32; }

cache::CacheOptions SparseStore::cache_options() const {
  return {.units = units_, .slots = 1, .slot_bytes = slot_bytes_, .policy = ablation_.policy};
}

int64_t SparseStore::cache_tables() const {
  return static_cast<int64_t>(cache::UnitCache::bookkeeping_bytes(cache_options()));
}

int64_t SparseStore::least_bytes() const {
  if (!ablation_.keep) return 0;
  return cache_tables() + std::min(units_, kLeastSlots) * slot_cost();
}

void SparseStore::add_work(const plan::Plan& plan, TokenWork* work) const {
  const model::MoeConfig& moe = loaded_.config.moe;
  const double used = moe.experts > 0 ? static_cast<double>(moe.used) / static_cast<double>(moe.experts) : 1.0;
  const double bytes_used = static_cast<double>(record_bytes()) * used;
  if (ablation_.whole_layers) {  // as matrices that no memory holds
    work->dense += static_cast<uint64_t>(bytes_used);
    work->streamed += static_cast<uint64_t>(bytes_used);
    return;
  }
  work->chosen = static_cast<uint64_t>(bytes_used * kFiringShare);
  const auto bytes = static_cast<double>(plan.hot_bytes + plan.cold_bytes);
  work->chosen_here = std::clamp(bytes / static_cast<double>(slot_cost() * units_), 0.0, 1.0);
  work->record_bytes = slot_bytes_;
  if (!rates_.empty()) add_known_work(plan, work);
}

// Rates are of all tokens, an expert's among them.
void SparseStore::add_known_work(const plan::Plan& plan, TokenWork* work) const {
  double all = 0;
  double here = 0;
  for (size_t l = 0; l < tables_.size(); ++l) {
    const pipeline::NeuronTable& table = tables_[l];
    const std::span<const uint16_t> rates = rates_of(table);
    for (size_t n = 0; n < rates.size(); ++n) {
      const double rate = half_to_float(rates[n]);
      const bool hot = static_cast<int64_t>(n) % table.expert_neurons() < plan.hot_neurons[l];
      all += rate;
      if (hot || rates[n] >= plan.fill_rate) here += rate;
    }
  }
  work->chosen = static_cast<uint64_t>(all * static_cast<double>(slot_bytes_));
  work->chosen_here = all > 0 ? here / all : 1;
  work->rates_known = true;
}

std::span<const uint16_t> SparseStore::rates_of(const pipeline::NeuronTable& table) const {
  if (rates_.empty()) return {};
  return std::span(rates_).subspan(static_cast<size_t>(table.records.first_checksum),
                                   static_cast<size_t>(table.records.neurons));
}

pipeline::SparseOptions SparseStore::options(int64_t max_tokens) const {
  pipeline::SparseOptions o{.max_tokens = max_tokens};
  o.fetch.gap_bytes = kGapBytes;
  o.fetch.use_cache = ablation_.keep;
  if (!ablation_.keep) o.fetch.transients = kUncachedRecords;
  o.switches = {.synchronous_reads = ablation_.barriers, .stage_barriers = ablation_.barriers};
  o.whole_layers = ablation_.whole_layers;
  return o;
}

int64_t SparseStore::ffn_bytes(const kernels::Kernels& kernels, sys::ThreadPool& threads, int64_t max_tokens,
                               pipeline::IoQueue* queue) const {
  NoSource none;
  model::Multiplier multiplier(kernels, threads, none, {.max_tokens = 1});
  return static_cast<int64_t>(pipeline::SparseFfn::bytes({.config = loaded_.config,
                                                          .weights = loaded_.weights,
                                                          .multiplier = multiplier,
                                                          .tables = tables_,
                                                          .queue = queue},
                                                         options(max_tokens)));
}

plan::Plan SparseStore::plan(int64_t room, int64_t kv, const Streaming::Range& matrices) const {
  plan::Request request{.room = room,
                        .kv = kv,
                        .matrices = matrices.most,
                        .matrices_least = matrices.least,
                        .record_bytes = static_cast<int64_t>(slot_bytes_),
                        .slot_bytes = slot_cost(),
                        .disk = measured_disk(file_)};
  if (!ablation_.keep) return plan::make_plan(request);
  request.records_least = least_bytes();
  request.tables = cache_tables();
  request.hot_first = hot_first_;
  for (const pipeline::NeuronTable& table : tables_) {
    request.layers.push_back(
        {.experts = table.records.experts, .neurons = table.expert_neurons(), .rates = rates_of(table)});
  }
  return plan::make_plan(request);
}

Status SparseStore::cache_in(const plan::Plan& plan, const std::vector<OpenedFile>& files, pipeline::IoQueue& queue) {
  plan_ = plan;
  queue_ = &queue;
  for (pipeline::NeuronTable& table : tables_) table.file = &files[table.records.file].direct;
  if (!ablation_.keep) return ok_status();
  cache::CacheOptions options = cache_options();
  options.slots = std::clamp<int64_t>((plan.cold_bytes - cache_tables()) / slot_cost(), 1, units_);
  STOKE_ASSIGN(arena_, sys::Memory::map(static_cast<size_t>(options.slots) * slot_bytes_));
  options.arena = arena_.data();
  most_slots_ = options.slots;
  cache_ = std::make_unique<cache::UnitCache>(options);
  if (plan.hot_bytes > 0) {
    STOKE_ASSIGN(hot_, sys::Memory::map(static_cast<size_t>(plan.hot_bytes)));
  }
  size_t at = 0;
  for (size_t l = 0; l < tables_.size(); ++l) {
    pipeline::NeuronTable& table = tables_[l];
    table.hot = hot_.data() + at;
    table.hot_count = plan.hot_neurons[l];
    at += static_cast<size_t>(table.hot_count * table.records.experts) * table.record_bytes();
  }
  return ok_status();
}

void SparseStore::make_room(int64_t bytes) {
  if (cache_ == nullptr) return;
  const int64_t before = cache_->slots();
  const int64_t fits = (plan_.cold_bytes - bytes - cache_tables()) / slot_cost();
  const int64_t left = cache_->resize(std::clamp<int64_t>(fits, 1, most_slots_));
  if (left >= before) return;
  arena_.discard(static_cast<size_t>(left) * slot_bytes_, static_cast<size_t>(before - left) * slot_bytes_);
}

std::unique_ptr<model::Ffn> SparseStore::make_ffn(model::Multiplier& multiplier, int64_t max_tokens) {
  auto ffn = std::make_unique<pipeline::SparseFfn>(pipeline::SparseFfn::Parts{.config = loaded_.config,
                                                                              .weights = loaded_.weights,
                                                                              .multiplier = multiplier,
                                                                              .tables = tables_,
                                                                              .cache = cache_.get(),
                                                                              .queue = queue_,
                                                                              .firings = firings_.get()},
                                                   options(max_tokens));
  ffn_ = ffn.get();
  return ffn;
}

void SparseStore::end_pass() {
  if (cache_ != nullptr) cache_->end_pass();
}

}  // namespace stoke::engine
