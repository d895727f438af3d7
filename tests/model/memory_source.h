// A weight source over bytes in memory, for tests: carries out a weight plan at once, and can be told to hand out few
// rows at a time, as a streaming source does.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "engine/weight_plan.h"
#include "formats/model_file.h"
#include "model/weight_source.h"
#include "sys/files.h"

namespace stoke::test {

class MemorySource final : public model::WeightSource {
 public:
  // rows_at_once: the most rows a lease answers with; 0: all that were asked for.
  explicit MemorySource(int64_t rows_at_once = 0) : rows_at_once_(rows_at_once) {}

  model::MatrixId add(model::MatrixInfo info, std::vector<std::byte> bytes) {
    CHECK(bytes.size() == static_cast<size_t>(info.rows) * info.row_bytes);
    infos_.push_back(info);
    bytes_.push_back(std::move(bytes));
    return {static_cast<int32_t>(infos_.size() - 1)};
  }

  // Reads all matrices of a plan. Types are not converted.
  static Result<std::unique_ptr<MemorySource>> load(const formats::ModelFile& file, const engine::WeightPlan& plan,
                                                    int64_t rows_at_once = 0) {
    auto source = std::make_unique<MemorySource>(rows_at_once);
    for (const engine::MatrixSpec& spec : plan.matrices) {
      CHECK(spec.stored == spec.info.type);
      std::vector<std::byte> bytes(static_cast<size_t>(spec.info.rows) * spec.info.row_bytes);
      size_t at = 0;
      for (const engine::Piece& piece : spec.pieces) {
        STOKE_ASSIGN(const std::vector<std::byte> data, read(file, piece.extent));
        STOKE_ASSIGN(const std::vector<std::byte> scales, read(file, piece.scales));
        for (int64_t row = 0; row < piece.rows; ++row, at += spec.info.row_bytes) {
          engine::decode_row(spec, piece, data.data(), scales.data(), row, bytes.data() + at);
        }
      }
      source->add(spec.info, std::move(bytes));
    }
    return source;
  }

  const model::MatrixInfo& matrix(model::MatrixId id) const override { return infos_[static_cast<size_t>(id.index)]; }

  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    const model::MatrixInfo& info = matrix(id);
    CHECK(wanted.begin >= 0 && wanted.begin < wanted.end && wanted.end <= info.rows);
    if (rows_at_once_ > 0) wanted.end = std::min(wanted.end, wanted.begin + rows_at_once_);
    most_leases_ = std::max(most_leases_, ++leases_);
    return RowsView{info.type, wanted, info.cols, info.row_bytes, row(id, wanted.begin)};
  }
  void release(model::MatrixId, const RowsView&) override { --leases_; }
  Status read_row(model::MatrixId id, int64_t r, std::byte* dst) override {
    std::memcpy(dst, row(id, r), matrix(id).row_bytes);
    return ok_status();
  }

  int leases() const { return leases_; }
  int most_leases() const { return most_leases_; }

 private:
  static Result<std::vector<std::byte>> read(const formats::ModelFile& file, const formats::Extent& extent) {
    std::vector<std::byte> bytes(extent.bytes);
    if (bytes.empty()) return bytes;
    STOKE_ASSIGN(const sys::File in, sys::File::open_read(file.files[extent.file]));
    STOKE_TRY(in.pread_full(bytes.data(), bytes.size(), extent.offset));
    return bytes;
  }
  const std::byte* row(model::MatrixId id, int64_t r) const {
    return bytes_[static_cast<size_t>(id.index)].data() + static_cast<size_t>(r) * matrix(id).row_bytes;
  }

  int64_t rows_at_once_;
  int leases_ = 0;
  int most_leases_ = 0;
  std::vector<model::MatrixInfo> infos_;
  std::vector<std::vector<std::byte>> bytes_;
};

}  // namespace stoke::test
