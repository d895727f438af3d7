#include "tensor/dtype.h"

#include <array>
#include <cctype>

#include "base/check.h"
#include "tensor/blocks.h"

namespace stoke {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kTable = {{
    {DType::kF32, "f32", "F32", 0, 1, 4, 0, false},
    {DType::kF16, "f16", "F16", 1, 1, 2, 0, false},
    {DType::kBF16, "bf16", "BF16", 30, 1, 2, 0, false},
    {DType::kQ4_0, "q4_0", "Q4_0", 2, 32, sizeof(BlockQ4_0), 32, false},
    {DType::kQ4_1, "q4_1", "Q4_1", 3, 32, sizeof(BlockQ4_1), 32, true},
    {DType::kQ5_0, "q5_0", "Q5_0", 6, 32, sizeof(BlockQ5_0), 32, false},
    {DType::kQ5_1, "q5_1", "Q5_1", 7, 32, sizeof(BlockQ5_1), 32, true},
    {DType::kQ8_0, "q8_0", "Q8_0", 8, 32, sizeof(BlockQ8_0), 32, false},
    {DType::kQ2_K, "q2_k", "Q2_K", 10, 256, sizeof(BlockQ2_K), 16, true},
    {DType::kQ3_K, "q3_k", "Q3_K", 11, 256, sizeof(BlockQ3_K), 16, false},
    {DType::kQ4_K, "q4_k", "Q4_K", 12, 256, sizeof(BlockQ4_K), 32, true},
    {DType::kQ5_K, "q5_k", "Q5_K", 13, 256, sizeof(BlockQ5_K), 32, true},
    {DType::kQ6_K, "q6_k", "Q6_K", 14, 256, sizeof(BlockQ6_K), 16, false},
    {DType::kIQ4_NL, "iq4_nl", "IQ4_NL", 20, 32, sizeof(BlockIQ4_NL), 32, false},
    {DType::kIQ4_XS, "iq4_xs", "IQ4_XS", 23, 256, sizeof(BlockIQ4_XS), 32, false},
    {DType::kMXFP4, "mxfp4", "MXFP4", 39, 32, sizeof(BlockMXFP4), 32, false},
}};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(a[i])) != std::tolower(static_cast<unsigned char>(b[i]))) return false;
  }
  return true;
}

}  // namespace

const DTypeInfo& info(DType type) {
  CHECK(static_cast<int>(type) < kDTypeCount);
  return kTable[static_cast<size_t>(type)];
}

std::span<const DTypeInfo> all_dtypes() { return kTable; }

const DTypeInfo* find_dtype(std::string_view name) {
  for (const DTypeInfo& row : kTable) {
    if (equal_ignoring_case(row.name, name)) return &row;
  }
  return nullptr;
}

const DTypeInfo* find_ggml_type(uint32_t ggml_id) {
  for (const DTypeInfo& row : kTable) {
    if (row.ggml_id == ggml_id) return &row;
  }
  return nullptr;
}

size_t row_bytes(DType type, int64_t elems) {
  const DTypeInfo& row = info(type);
  CHECK(elems % row.block_elems == 0);
  return static_cast<size_t>(elems / row.block_elems) * row.block_bytes;
}

}  // namespace stoke
