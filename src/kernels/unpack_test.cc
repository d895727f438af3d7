// Every instruction set's dequantize_row against what the reference reader makes of the same bytes; and the groups of
// every type against the run-time table. Golden files: tools/make_quant_goldens.py.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace stoke::kernels {
namespace {

std::vector<char> read_golden(const std::string& name) {
  std::ifstream file("tests/data/quant/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

class UnpackTest : public testing::TestWithParam<DType> {};

TEST_P(UnpackTest, EveryIsaReadsBlocksAsTheReferenceDoes) {
  const DTypeInfo& type = info(GetParam());
  const std::vector<char> bytes = read_golden(std::string(type.name) + ".bytes");
  const std::vector<char> floats = read_golden(std::string(type.name) + ".f32");
  const auto n = static_cast<int64_t>(floats.size() / sizeof(float));
  ASSERT_EQ(row_bytes(type.type, n), bytes.size());
  std::vector<float> want(static_cast<size_t>(n)), got(want.size());
  std::memcpy(want.data(), floats.data(), floats.size());
  for (const char* const* isa = runnable(); *isa; ++isa) {
    find(*isa)->dequantize_row(type.type, bytes.data(), got.data(), n);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i], want[i]) << *isa << " element " << i;
  }
}

// One row of one block times a token that is one at element e and zero elsewhere reads element e alone: the products'
// view of a block (levels, group scales, group minima) must be the reader's.
TEST_P(UnpackTest, ProductsSeeTheReadersValues) {
  const DTypeInfo& type = info(GetParam());
  const std::vector<char> bytes = read_golden(std::string(type.name) + ".bytes");
  constexpr int64_t kCols = 256;
  std::vector<float> want(kCols), x(kCols * kCols, 0.0f), y(kCols);
  const Kernels& portable = *find("portable");
  portable.dequantize_row(type.type, bytes.data(), want.data(), kCols);
  for (int64_t e = 0; e < kCols; ++e) x[static_cast<size_t>(e * kCols + e)] = 1.0f;
  std::vector<std::byte> act(act_bytes(kCols, kCols) + 64), scratch(scratch_bytes() + 64);
  auto aligned = [](std::vector<std::byte>& v) {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(v.data()) + 63) / 64 * 64);
  };
  for (const char* const* isa = runnable(); *isa; ++isa) {
    MatmulArgs args{
        .w = {type.type, {0, 1}, kCols, row_bytes(type.type, kCols), reinterpret_cast<const std::byte*>(bytes.data())},
        .x = act_carve(aligned(act), kCols, kCols),
        .y = y.data(),
        .y_stride = 1,
        .scratch = aligned(scratch)};
    args.x.f = x.data();
    args.x.f_stride = kCols;
    find(*isa)->quantize_acts(args.x, 0, kCols);
    find(*isa)->matmul(args);
    // 1 is held as 127 * (1 / 127): one rounding of the scale, a few of the products.
    for (size_t e = 0; e < want.size(); ++e) ASSERT_NEAR(y[e], want[e], 1e-6 * std::abs(want[e]) + 1e-6) << *isa << e;
  }
}

std::vector<DType> stored_types() {
  std::vector<DType> types;
  for (const DTypeInfo& t : all_dtypes()) {
    if (t.type != DType::kF32) types.push_back(t.type);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(Types, UnpackTest, testing::ValuesIn(stored_types()),
                         [](const auto& p) { return std::string(stoke::info(p.param).name); });

}  // namespace
}  // namespace stoke::kernels
