#include "formats/store_verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "sys/checksum.h"
#include "sys/memory.h"

namespace stoke::formats {
namespace {

constexpr uint64_t kReadBytes = uint64_t{4} << 20;

// Units that lie one after another, each with a checksum.
struct Run {
  const std::string* name = nullptr;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t unit_bytes = 0;
  std::span<const uint32_t> checksums;
  bool records = false;
};

Status mismatch(const std::string& path, const Run& run, size_t unit) {
  const std::string which = run.records ? fmt::format("record {}", unit)
                                        : fmt::format("rows from {}", unit * static_cast<size_t>(kChecksumRows));
  return Status(Code::kCorrupt, fmt::format("{}: tensor {}, {} (byte {}) is damaged: its checksum differs: convert the "
                                            "model again, or copy the file again",
                                            path, *run.name, which, run.offset + unit * run.unit_bytes));
}

class Verifier {
 public:
  Verifier(const sys::File& file, sys::Memory buffer, const std::function<bool(uint64_t, uint64_t)>& progress,
           uint64_t total)
      : file_(file), buffer_(std::move(buffer)), progress_(progress), total_(total) {}

  Status check(const Run& run) {
    const uint64_t units_at_once = std::max<uint64_t>(1, kReadBytes / run.unit_bytes);
    const size_t count = run.checksums.size();
    for (size_t unit = 0; unit < count; unit += units_at_once) {
      const uint64_t begin = unit * run.unit_bytes;
      const uint64_t bytes = std::min(units_at_once * run.unit_bytes, run.bytes - begin);
      STOKE_ASSIGN(const std::byte* const data, read(run.offset + begin, bytes));
      for (uint64_t at = 0; at < bytes; at += run.unit_bytes) {
        const size_t which = unit + at / run.unit_bytes;
        const uint32_t found = sys::checksum32(data + at, std::min(run.unit_bytes, bytes - at));
        if (found != run.checksums[which]) return mismatch(file_.path(), run, which);
      }
      done_ += bytes;
      if (progress_ && !progress_(done_, total_)) return Status(Code::kCancelled, "stopped while verifying");
    }
    return ok_status();
  }

 private:
  // An aligned superset, for direct reads.
  Result<const std::byte*> read(uint64_t offset, uint64_t bytes) {
    const uint64_t unit = file_.alignment();
    const uint64_t begin = offset / unit * unit;
    const uint64_t lead = offset - begin;
    const uint64_t superset = (lead + bytes + unit - 1) / unit * unit;
    if (superset > buffer_.size()) {
      STOKE_ASSIGN(buffer_, sys::Memory::map(superset));
    }
    STOKE_TRY(file_.pread_some(buffer_.data(), superset, lead + bytes, begin));
    file_.drop_read(begin, superset);
    return static_cast<const std::byte*>(buffer_.data() + lead);
  }

  const sys::File& file_;
  sys::Memory buffer_;
  const std::function<bool(uint64_t, uint64_t)>& progress_;
  uint64_t total_;
  uint64_t done_ = 0;
};

std::vector<Run> list_runs(const ModelFile& model, const NeuronStore& store, const StoreChecksums& checksums) {
  std::vector<Run> runs;
  for (const MatrixUnits& units : store.matrices) {
    const TensorEntry& tensor = model.tensors[units.tensor];
    runs.push_back({.name = &tensor.name,
                    .offset = tensor.extent.offset,
                    .bytes = tensor.extent.bytes,
                    .unit_bytes = units.unit_bytes,
                    .checksums = std::span(checksums.matrices)
                                     .subspan(static_cast<size_t>(units.first), static_cast<size_t>(units.count))});
  }
  for (const RecordTable& table : store.tables) {
    runs.push_back(
        {.name = &table.name,
         .offset = table.offset,
         .bytes = table.bytes(),
         .unit_bytes = table.record.record_bytes,
         .checksums = std::span(checksums.records)
                          .subspan(static_cast<size_t>(table.first_checksum), static_cast<size_t>(table.neurons)),
         .records = true});
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.offset < b.offset; });
  return runs;
}

}  // namespace

Status verify_store(const ModelFile& model, const NeuronStore& store,
                    const std::function<bool(uint64_t, uint64_t)>& progress) {
  STOKE_ASSIGN(const auto source, DiskFiles().open(model.files[0]));
  STOKE_ASSIGN(const StoreChecksums checksums, load_store_checksums(*source, store));
  const std::vector<Run> runs = list_runs(model, store, checksums);
  uint64_t total = 0;
  for (const Run& run : runs) total += run.bytes;
  STOKE_ASSIGN(const sys::File file, sys::File::open_direct(model.files[0]));
  STOKE_ASSIGN(sys::Memory buffer, sys::Memory::map(kReadBytes + 2 * kStoreAlignment));
  Verifier verifier(file, std::move(buffer), progress, total);
  for (const Run& run : runs) STOKE_TRY(verifier.check(run));
  return ok_status();
}

}  // namespace stoke::formats
