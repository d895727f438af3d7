#include "formats/store_header.h"

#include <algorithm>

#include "base/check.h"
#include "sys/checksum.h"

namespace stoke::formats {
namespace {

int32_t ggml_number(DType type) { return static_cast<int32_t>(info(type).ggml_id); }

uint32_t checksum_of(std::string_view bytes) { return sys::checksum32(bytes.data(), bytes.size()); }

std::string bytes_of(std::span<const uint32_t> numbers) {
  return std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
}

uint32_t checksum_of_pieces(std::string_view header) {
  std::vector<uint32_t> checksums;
  add_checksums(std::as_bytes(std::span(header)), kHeaderPieceBytes, &checksums);
  return checksum_of(bytes_of(checksums));
}

}  // namespace

StoreHeader::StoreHeader(const StoreSpec& spec) : spec_(spec), header_(kStoreAlignment) {
  header_.set_u32(store_keys::kVersion, static_cast<uint32_t>(kStoreVersion));
  header_.set_string(store_keys::kLayout, layout_name(spec.layout));
  header_.set_string(store_keys::kDown, encoding_name(spec.down));
  header_.set_u32(store_keys::kClusterNeurons, static_cast<uint32_t>(kClusterNeurons));
  header_.set_u32(store_keys::kDim, static_cast<uint32_t>(spec.dim));
  header_.set_string(store_keys::kSource, spec.source);
  CHECK(!spec.hot_first || spec.firing_tokens > 0);
  if (spec.firing_tokens == 0) return;
  header_.set_string(store_keys::kOrder, spec.hot_first ? "hot-first" : "source");
  header_.set_u64(store_keys::kFiringTokens, static_cast<uint64_t>(spec.firing_tokens));
}

void StoreHeader::add_matrix(std::string_view name, DType type, std::span<const int64_t> shape) {
  Tensor tensor{.name = std::string(name), .offset = header_.data_bytes()};
  header_.add_tensor(name, type, shape);
  tensor.bytes = header_.tensor_bytes().back();
  const uint64_t one_row = row_bytes(type, shape.back());
  const auto rows = static_cast<int64_t>(tensor.bytes / one_row);
  tensor.unit_bytes = one_row * static_cast<uint64_t>(kChecksumRows);
  matrix_units_ += (rows + kChecksumRows - 1) / kChecksumRows;
  tensors_.push_back(std::move(tensor));
}

void StoreHeader::add_records(const NeuronRecord& record, int64_t neurons, int64_t experts) {
  CHECK(record.layout == spec_.layout && record.down_encoding == spec_.down && record.dim == spec_.dim);
  const auto layer = static_cast<int64_t>(record_bytes_.size());
  Tensor tensor{.name = store_tensor_name(StorePart::kRecords, layer, experts > 0),
                .records = true,
                .offset = header_.data_bytes(),
                .unit_bytes = record.record_bytes};
  const auto stride = static_cast<int64_t>(record.record_bytes);
  std::vector<int64_t> shape = {neurons, stride};
  if (experts > 0) shape = {experts, neurons / experts, stride};
  header_.add_raw(tensor.name, kRawI8, shape);
  tensor.bytes = header_.tensor_bytes().back();
  gate_types_.push_back(ggml_number(record.gate_type));
  up_types_.push_back(ggml_number(record.up_type));
  down_types_.push_back(ggml_number(record.down_type));
  record_bytes_.push_back(static_cast<int32_t>(stride));
  records_ += neurons;
  tensors_.push_back(std::move(tensor));
}

void StoreHeader::finish() {
  CHECK(bytes_.empty());
  header_.set_i32s(store_keys::kGateTypes, gate_types_);
  header_.set_i32s(store_keys::kUpTypes, up_types_);
  header_.set_i32s(store_keys::kDownTypes, down_types_);
  header_.set_i32s(store_keys::kRecordBytes, record_bytes_);
  if (spec_.firing_tokens > 0) add_matrix(kFiring, DType::kF16, std::vector<int64_t>{records_});
  tail_offset_ = header_.data_bytes();
  header_.add_raw(kRecordChecksums, kRawI32, std::vector<int64_t>{records_});
  header_.add_raw(kMatrixChecksums, kRawI32, std::vector<int64_t>{matrix_units_});
  header_.add_raw(kSeal, kRawI32, std::vector<int64_t>{4});
  bytes_ = header_.bytes();
  for (Tensor& tensor : tensors_) tensor.offset += bytes_.size();
  tail_offset_ += bytes_.size();
}

std::string StoreHeader::tail(const StoreChecksums& checksums) const {
  CHECK(static_cast<int64_t>(checksums.records.size()) == records_);
  CHECK(static_cast<int64_t>(checksums.matrices.size()) == matrix_units_);
  const std::string records = bytes_of(checksums.records);
  const std::string matrices = bytes_of(checksums.matrices);
  uint32_t seal[4] = {checksum_of_pieces(bytes_), checksum_of(records), checksum_of(matrices), 0};
  seal[3] = sys::checksum32(seal, 3 * sizeof(uint32_t));
  std::string out;
  for (const std::string& part : {records, matrices, bytes_of(seal)}) {
    out += part;
    out.resize(header_.aligned(out.size()), '\0');
  }
  return out;
}

void add_checksums(std::span<const std::byte> bytes, uint64_t unit_bytes, std::vector<uint32_t>* out) {
  for (size_t at = 0; at < bytes.size(); at += unit_bytes) {
    const size_t count = std::min<size_t>(unit_bytes, bytes.size() - at);
    out->push_back(sys::checksum32(bytes.data() + at, count));
  }
}

}  // namespace stoke::formats
