// SparseStore: bringing records to memory, all of them or the hottest, before the first pass.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/sparse_store.h"
#include "sys/populator.h"
#include "tensor/half.h"

namespace stoke::engine {
namespace {

constexpr size_t kLoadBytes = size_t{4} << 20;
constexpr int kLoadDepth = 4;  // 4 MiB reads: deeper was slower (docs/reads.md)
constexpr size_t kTableAlignment = 4096;

size_t padded(uint64_t bytes) { return (bytes + kTableAlignment - 1) / kTableAlignment * kTableAlignment; }

}  // namespace

Status SparseStore::hold_all(const CancelFlag* cancel) {
  rates_ = std::vector<uint16_t>();
  size_t all = 0;
  for (const pipeline::NeuronTable& table : tables_) all += padded(table.records.bytes());
  STOKE_ASSIGN(arena_, sys::Memory::map(all + kTableAlignment));
  sys::Populator populator;
  populator.start({{&arena_, all}});
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
    if (table.intact(n, record)) continue;
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
// The reads are those that the first prompt would make: what memory holds is not read again.
Status SparseStore::fill(const CancelFlag* cancel) {
  if (!ablation_.hot) return ok_status();
  STOKE_ASSIGN(pipeline::RecordLoader loader, pipeline::RecordLoader::create(*queue_, kGapBytes, slot_bytes_));
  for (size_t layer = 0; layer < tables_.size(); ++layer) STOKE_TRY(fill_layer(loader, layer, cancel));
  cache_->reset_counts();
  rates_ = std::vector<uint16_t>();  // gives the memory back
  return ok_status();
}

Status SparseStore::fill_layer(pipeline::RecordLoader& loader, size_t layer, const CancelFlag* cancel) {
  const pipeline::NeuronTable& table = tables_[layer];
  STOKE_TRY(fill_hot(loader, table, cancel));
  seed(table);
  std::vector<int32_t> neurons;
  for (int64_t n = 0; n < table.records.neurons && filled_ < plan_.fill_records; ++n) {
    if (table.hot_record(n) != nullptr || !wants_cold(layer, n)) continue;
    neurons.push_back(static_cast<int32_t>(n));
    ++filled_;
  }
  return loader.load(
      table, neurons,
      [&](int64_t neuron, const std::byte* record) {
        const cache::SlotId slot = cache_->reserve({static_cast<int32_t>(table.first_unit + neuron)}, true);
        std::memcpy(cache_->data(slot), record, table.record_bytes());
        cache_->commit(slot, false);
      },
      cancel);
}

Status SparseStore::fill_hot(pipeline::RecordLoader& loader, const pipeline::NeuronTable& table,
                             const CancelFlag* cancel) {
  std::vector<int32_t> neurons;
  for (int64_t e = 0; e < table.records.experts; ++e) {
    const int64_t first = e * table.expert_neurons();
    for (int64_t n = first; n < first + table.hot_count; ++n) neurons.push_back(static_cast<int32_t>(n));
  }
  return loader.load(
      table, neurons,
      [&](int64_t neuron, const std::byte* record) {
        std::memcpy(const_cast<std::byte*>(table.hot_record(neuron)), record, table.record_bytes());
      },
      cancel);
}

// Nothing known: as many of each dense layer, from the front; of experts none, since a token uses few of them.
bool SparseStore::wants_cold(size_t layer, int64_t neuron) const {
  const pipeline::NeuronTable& table = tables_[layer];
  const std::span<const uint16_t> rates = rates_of(table);
  if (!rates.empty()) return rates[static_cast<size_t>(neuron)] >= plan_.fill_rate;
  return table.records.experts == 1 && neuron < plan_.fill_records * table.records.neurons / units_;
}

// Tells the cache how often neurons fire, as if it had seen so many tokens that the mean use of a unit is where the
// policy's halving leaves it. What is learnt from then on counts as much as if it had learnt this, too.
void SparseStore::seed(const pipeline::NeuronTable& table) {
  constexpr float kTokens = 64;
  const std::span<const uint16_t> rates = rates_of(table);
  for (size_t n = 0; n < rates.size(); ++n) {
    const auto uses = static_cast<int64_t>(std::lround(kTokens * half_to_float(rates[n])));
    if (uses == 0 || table.hot_record(static_cast<int64_t>(n)) != nullptr) continue;
    cache_->find({static_cast<int32_t>(table.first_unit + static_cast<int64_t>(n))}, uses);
  }
}

}  // namespace stoke::engine
