#include "engine/sparse_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>

#include "base/check.h"
#include "formats/neuron_store.h"
#include "pipeline/stream_source.h"
#include "sys/checksum.h"

namespace stoke::engine {
namespace {

constexpr size_t kLoadBytes = size_t{4} << 20;
constexpr int kLoadDepth = 4;  // 4 MiB reads: deeper was slower (docs/reads.md)
constexpr size_t kTableAlignment = 4096;
// Misses that lie closer than this come in one read: a request costs about as much as 34 KB read (docs/reads.md).
constexpr uint32_t kGapBytes = 16 << 10;
constexpr int64_t kLeastSlots = 4096;

size_t padded(uint64_t bytes) { return (bytes + kTableAlignment - 1) / kTableAlignment * kTableAlignment; }

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

}  // namespace

SparseStore::~SparseStore() = default;

Result<std::unique_ptr<SparseStore>> SparseStore::open(const formats::ModelFile& file, const ModelPlan& loaded) {
  std::unique_ptr<SparseStore> out(new SparseStore(file, loaded));
  for (const RecordTable& records : loaded.tables) {
    out->tables_.push_back({.records = records, .first_unit = out->units_});
    out->units_ += records.neurons;
    out->slot_bytes_ = std::max(out->slot_bytes_, records.record.record_bytes);
  }
  STOKE_TRY(out->load_checksums());
  STOKE_TRY(out->load_scales());
  return out;
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

// Scales and minima of codes are matrices of the plan that no product uses: they stay in memory here.
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

int64_t SparseStore::least_bytes() const {
  const cache::CacheOptions none{.units = units_, .slots = 1, .policy = cache::PolicyKind::kLfu};
  return static_cast<int64_t>(cache::UnitCache::bookkeeping_bytes(none)) + std::min(units_, kLeastSlots) * slot_cost();
}

pipeline::SparseOptions SparseStore::options(int64_t max_tokens) const {
  pipeline::SparseOptions o{.max_tokens = max_tokens};
  o.fetch.gap_bytes = kGapBytes;
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

Status SparseStore::hold_all(const CancelFlag* cancel) {
  size_t all = 0;
  for (const pipeline::NeuronTable& table : tables_) all += padded(table.records.bytes());
  STOKE_ASSIGN(arena_, sys::Memory::map(all + kTableAlignment));
  STOKE_ASSIGN(const std::vector<OpenedFile> files, open_files(file_.files));
  size_t at = 0;
  for (pipeline::NeuronTable& table : tables_) {
    STOKE_TRY(load_records(table, arena_.data() + at, files[table.records.file], cancel));
    table.hot = arena_.data() + at;
    table.hot_count = table.expert_neurons();
    at += padded(table.records.bytes());
  }
  return ok_status();
}

namespace {

// All bytes of a table, in large reads.
Status read_table(const RecordTable& records, std::byte* to, const sys::File& file, const CancelFlag* cancel) {
  const uint64_t all = records.bytes();
  const uint64_t align = std::max<uint64_t>(file.alignment(), 1);
  STOKE_ASSIGN(const std::unique_ptr<io::Reader> reader, io::open_reader({.depth = kLoadDepth}, nullptr));
  std::vector<io::Done> done(kLoadDepth);
  std::vector<io::Read> reads;
  for (uint64_t begin = 0; begin < all || reader->in_flight() > 0;) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return Status(Code::kCancelled, "stopped while the records were being read");
    }
    for (; begin < all && reader->in_flight() < reader->depth(); begin += kLoadBytes) {
      const uint64_t bytes = std::min<uint64_t>(kLoadBytes, all - begin);
      reads.push_back({.file = &file,
                       .offset = records.offset + begin,
                       .bytes = static_cast<uint32_t>((bytes + align - 1) / align * align),
                       .at_least = static_cast<uint32_t>(bytes),
                       .dst = to + begin,
                       .tag = reads.size()});
      reader->push(reads.back());
    }
    const size_t count = reader->wait(done);
    for (size_t i = 0; i < count; ++i) {
      const io::Read& read = reads[done[i].tag];
      file.drop_read(read.offset, read.bytes);
      if (done[i].error != 0) return io::read_failure(read, done[i]).with("tensor " + records.name);
    }
  }
  return ok_status();
}

// kCorrupt where a record does not have its checksum.
Status check_records(const pipeline::NeuronTable& table, const std::byte* first, const sys::File& file) {
  for (int64_t n = 0; n < table.records.neurons; ++n) {
    const std::byte* record = first + static_cast<size_t>(n) * table.record_bytes();
    if (sys::checksum32(record, table.record_bytes()) == table.checksums[static_cast<size_t>(n)]) continue;
    return Status(
        Code::kCorrupt,
        fmt::format("{}: layer {}, neuron {}, offset {}: its checksum does not match, twice: fetch or convert "
                    "the store again (stoke inspect --verify says what else is damaged)",
                    file.path(), table.records.layer, n, table.records.offset_of(n)));
  }
  return ok_status();
}

}  // namespace

// What went wrong is read once more: some errors pass.
Status SparseStore::load_records(const pipeline::NeuronTable& table, std::byte* to, const OpenedFile& file,
                                 const CancelFlag* cancel) const {
  Status status;
  for (int attempt = 0; attempt < 2; ++attempt) {
    status = read_table(table.records, to, file.direct, cancel);
    if (status.code() == Code::kCancelled) return status;
    if (status.ok()) status = check_records(table, to, file.direct);
    if (status.ok()) break;
  }
  return status;
}

Status SparseStore::cache_in(int64_t bytes, const std::vector<OpenedFile>& files, pipeline::IoQueue& queue) {
  for (pipeline::NeuronTable& table : tables_) table.file = &files[table.records.file].direct;
  cache::CacheOptions options{
      .units = units_, .slots = 1, .slot_bytes = slot_bytes_, .policy = cache::PolicyKind::kLfu};
  const auto books = static_cast<int64_t>(cache::UnitCache::bookkeeping_bytes(options));
  options.slots = std::clamp<int64_t>((bytes - books) / slot_cost(), 1, units_);
  STOKE_ASSIGN(arena_, sys::Memory::map(static_cast<size_t>(options.slots) * slot_bytes_));
  options.arena = arena_.data();
  cache_ = std::make_unique<cache::UnitCache>(options);
  queue_ = &queue;
  return ok_status();
}

void SparseStore::shrink(int64_t bytes) {
  const cache::CacheOptions none{.units = units_, .slots = 1, .policy = cache::PolicyKind::kLfu};
  const auto books = static_cast<int64_t>(cache::UnitCache::bookkeeping_bytes(none));
  const int64_t before = cache_->slots();
  const int64_t target = std::max<int64_t>(1, (bytes - books) / slot_cost());
  if (target >= before) return;
  const int64_t left = cache_->resize(target);
  const size_t page = sys::page_size();
  const size_t begin = (static_cast<size_t>(left) * slot_bytes_ + page - 1) / page * page;
  const size_t end = static_cast<size_t>(before) * slot_bytes_ / page * page;
  if (begin < end) arena_.discard(begin, end - begin);
}

std::unique_ptr<model::Ffn> SparseStore::make_ffn(model::Multiplier& multiplier, int64_t max_tokens) {
  auto ffn = std::make_unique<pipeline::SparseFfn>(pipeline::SparseFfn::Parts{.config = loaded_.config,
                                                                              .weights = loaded_.weights,
                                                                              .multiplier = multiplier,
                                                                              .tables = tables_,
                                                                              .cache = cache_.get(),
                                                                              .queue = queue_},
                                                   options(max_tokens));
  ffn_ = ffn.get();
  return ffn;
}

void SparseStore::end_pass() {
  if (cache_ != nullptr) cache_->end_pass();
}

}  // namespace stoke::engine
