// Scattered rows, every instruction set and element type: products have matmul's bits, sums have those of plain loops
// over dequantised values, codes with scales beside them have those of the blocks they came from.
#include "kernels/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/rows_test_util.h"

namespace stoke::kernels {
namespace {

using Floats = std::vector<float>;

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Aligned {
  explicit Aligned(size_t bytes) : data(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {}
  ~Aligned() { std::free(data); }
  void* data;
};

Floats random_floats(int64_t n, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = normal(rng);
  return x;
}

// Rows in a shuffled order, as the neurons of a cluster lie in a cache.
struct Scattered {
  DType type;
  int64_t dim;
  std::vector<std::byte> bytes;
  std::vector<const std::byte*> rows;
  Scattered(DType t, int64_t count, int64_t columns, std::mt19937& rng)
      : type(t), dim(columns), bytes(random_rows(t, count, columns, rng)) {
    for (int64_t r = 0; r < count; ++r) rows.push_back(bytes.data() + static_cast<size_t>(r) * row_bytes(t, columns));
    std::shuffle(rows.begin(), rows.end(), rng);
  }
  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  DownRows down() const { return {.type = type, .rows = rows.data(), .count = count(), .dim = dim}; }
  Floats row(int64_t j) const {
    Floats w(static_cast<size_t>(dim));
    find("portable")->dequantize_row(type, rows[static_cast<size_t>(j)], w.data(), dim);
    return w;
  }
};

class SparseKernelTest : public testing::TestWithParam<DType> {};

TEST_P(SparseKernelTest, GatherDot_GivesMatmulsBits) {
  std::mt19937 rng(1);
  for (const int64_t dim : {256, 768, 2304}) {
    for (const int64_t count : {1, 5, 16, 37}) {
      const Scattered s(GetParam(), count, dim, rng);
      const Floats x = random_floats(dim, rng);
      Aligned act(act_bytes(1, dim)), scratch(scratch_bytes());
      for (const char* const* isa = runnable(); *isa; ++isa) {
        const Kernels& k = *find(*isa);
        ActView view = act_carve(act.data, 1, dim);
        view.f = x.data();
        view.f_stride = dim;
        k.quantize_acts(view, 0, 1);
        Floats want(static_cast<size_t>(count)), got(want.size());
        for (int64_t j = 0; j < count; ++j) {
          k.matmul({.w = {s.type, {0, 1}, dim, row_bytes(s.type, dim), s.rows[static_cast<size_t>(j)]},
                    .x = view,
                    .y = &want[static_cast<size_t>(j)],
                    .y_stride = 1,
                    .scratch = scratch.data});
        }
        k.sparse->gather_dot({s.type, s.rows.data(), count, view, got.data(), scratch.data});
        EXPECT_TRUE(same_bits(got, want)) << *isa << " dim " << dim << " count " << count;
      }
    }
  }
}

TEST_P(SparseKernelTest, AxpyRows_AddsRowAfterRow) {
  std::mt19937 rng(2);
  for (const int64_t dim : {256, 768}) {
    for (const int64_t count : {0, 1, 3, 4, 9}) {
      const Scattered s(GetParam(), count, dim, rng);
      const Floats h = random_floats(count, rng), start = random_floats(dim, rng);
      Floats want = start;
      for (int64_t j = 0; j < count; ++j) {
        const Floats w = s.row(j);
        for (size_t d = 0; d < w.size(); ++d) want[d] = std::fma(h[static_cast<size_t>(j)], w[d], want[d]);
      }
      Aligned scratch(scratch_bytes());
      for (const char* const* isa = runnable(); *isa; ++isa) {
        Floats got = start;
        find(*isa)->sparse->axpy_rows(s.down(), h.data(), got.data(), scratch.data);
        EXPECT_TRUE(same_bits(got, want)) << *isa << " dim " << dim << " count " << count;
      }
    }
  }
}

TEST_P(SparseKernelTest, WidenedRows_AddAsRowsDo) {
  std::mt19937 rng(3);
  constexpr int64_t kDim = 1024, kFirst = 256, kColumns = 512, kCount = 21;
  const Scattered s(GetParam(), kCount, kDim, rng);
  const Floats h = random_floats(9, rng), start = random_floats(kColumns, rng);
  const std::vector<uint8_t> index = {0, 2, 3, 7, 8, 11, 16, 19, 20};
  Floats partial(kColumns, 0.0f), want = start;
  for (size_t j = 0; j < h.size(); ++j) {
    const Floats w = s.row(index[j]);
    for (size_t d = 0; d < partial.size(); ++d) partial[d] = std::fma(h[j], w[kFirst + d], partial[d]);
  }
  for (size_t d = 0; d < want.size(); ++d) want[d] += partial[d];
  for (const char* const* isa = runnable(); *isa; ++isa) {
    const SparseKernels& k = *find(*isa)->sparse;
    constexpr int64_t kStride = kColumns + 16;
    Floats wide(kCount * kStride), got = start;
    k.widen_rows(s.down(), kFirst, kColumns, wide.data(), kStride);
    for (int64_t j = 0; j < kCount; ++j) {
      ASSERT_EQ(0, std::memcmp(&wide[static_cast<size_t>(j * kStride)], s.row(j).data() + kFirst, kColumns * 4))
          << *isa;
    }
    k.add_widened(wide.data(), kStride, kColumns, index.data(), h.data(), 9, got.data());
    EXPECT_TRUE(same_bits(got, want)) << *isa;
  }
}

// 32 elements along the model dimension of one neuron: the codes of some block, whose scale and minimum stand beside.
TEST_P(SparseKernelTest, Codes_GiveTheValuesOfTheirBlocks) {
  const DType type = GetParam();
  const DTypeInfo& t = info(type);
  if (is_float(type) || t.block_elems != 32 || type == DType::kMXFP4) GTEST_SKIP() << "this type has no codes";
  std::mt19937 rng(4);
  constexpr int64_t kDim = 96, kNeurons = 32;
  const size_t head = t.has_min ? 4 : 2, codes_bytes = t.block_bytes - head;
  auto blocks = random_rows(type, kNeurons, kDim, rng);
  std::vector<uint16_t> scales(kDim), mins(kDim);
  for (size_t d = 0; d < kDim; ++d) {
    scales[d] = float_to_half(0.001f + 0.0002f * static_cast<float>(d));
    mins[d] = float_to_half(0.03f - 0.001f * static_cast<float>(d));
  }
  std::vector<std::byte> codes;
  Floats values(kDim * kNeurons);
  const uint16_t one = float_to_half(1.0f), zero = 0;
  for (size_t b = 0; b < blocks.size() / t.block_bytes; ++b) {
    std::byte* block = blocks.data() + b * t.block_bytes;
    codes.insert(codes.end(), block + head, block + t.block_bytes);
    std::memcpy(block, &one, 2);
    if (t.has_min) std::memcpy(block + 2, &zero, 2);
    find("portable")->dequantize_row(type, block, &values[b * 32], 32);  // the levels
  }
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = half_to_float(scales[i % kDim]) * values[i];
    if (t.has_min) values[i] += half_to_float(mins[i % kDim]);
  }
  std::vector<const std::byte*> rows;
  std::vector<const uint16_t*> scale_rows(kNeurons, scales.data()), min_rows(kNeurons, mins.data());
  for (size_t i = 0; i < kNeurons; ++i) rows.push_back(codes.data() + i * kDim / 32 * codes_bytes);
  const DownRows down{type, DownEncoding::kCodes, rows.data(), scale_rows.data(), min_rows.data(), kNeurons, kDim};
  const Floats h = random_floats(kNeurons, rng);
  Floats want(kDim, 0.0f);
  for (size_t i = 0; i < kNeurons; ++i) {
    for (size_t d = 0; d < kDim; ++d) want[d] = std::fma(h[i], values[i * kDim + d], want[d]);
  }
  for (const char* const* isa = runnable(); *isa; ++isa) {
    Floats wide(values.size()), sum(kDim, 0.0f);
    find(*isa)->sparse->widen_rows(down, 0, kDim, wide.data(), kDim);
    EXPECT_TRUE(same_bits(wide, values)) << *isa;
    find(*isa)->sparse->axpy_rows(down, h.data(), sum.data(), nullptr);
    EXPECT_TRUE(same_bits(sum, want)) << *isa;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SparseKernelTest, testing::ValuesIn([] {
                           std::vector<DType> types;
                           for (const DTypeInfo& t : all_dtypes()) types.push_back(t.type);
                           return types;
                         }()),
                         [](const auto& p) { return std::string(stoke::info(p.param).name); });

}  // namespace
}  // namespace stoke::kernels
