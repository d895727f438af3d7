// Float products: every instruction set, one token or many, any rows and columns, against the contract of kernels.h
// written out in scalars, bit for bit.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/quantize.h"

namespace stoke::kernels {
namespace {

float contract(const float* w, const float* x, int64_t n) {
  std::array<float, 16> lanes{};
  for (int64_t k = 0; k < n; ++k) lanes[k % 16] = std::fma(w[k], x[k], lanes[k % 16]);
  for (size_t step = 8; step > 0; step /= 2) {
    for (size_t l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  return lanes[0];
}

struct Shape {
  int64_t rows, cols, tokens;
};

class MatmulFloatTest : public testing::TestWithParam<DType> {
 protected:
  void check(const Kernels& kernels, Shape s) {
    const int64_t stride = s.cols + 3;  // rows of activations may stand apart
    std::mt19937 rng(static_cast<uint32_t>(s.rows * 31 + s.cols * 7 + s.tokens));
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(s.rows * s.cols)), x(static_cast<size_t>(s.tokens * stride));
    for (float& v : values) v = normal(rng);
    for (float& v : x) v = normal(rng);
    std::vector<std::byte> w(static_cast<size_t>(s.rows) * row_bytes(GetParam(), s.cols));
    quantize_row(GetParam(), values.data(), w.data(), s.rows * s.cols);
    kernels.dequantize_row(GetParam(), w.data(), values.data(), s.rows * s.cols);
    const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, (scratch_bytes() + 63) / 64 * 64),
                                                              &std::free);
    std::vector<float> y(static_cast<size_t>(s.tokens * s.rows));
    kernels.matmul({.w = {GetParam(), {0, s.rows}, s.cols, row_bytes(GetParam(), s.cols), w.data()},
                    .x = {.tokens = s.tokens, .k = s.cols, .f = x.data(), .f_stride = stride},
                    .y = y.data(),
                    .y_stride = s.rows,
                    .scratch = scratch.get()});
    for (int64_t t = 0; t < s.tokens; ++t) {
      for (int64_t r = 0; r < s.rows; ++r) {
        const float want = contract(values.data() + r * s.cols, x.data() + t * stride, s.cols);
        ASSERT_EQ(y[static_cast<size_t>(t * s.rows + r)], want)
            << kernels.isa << " rows " << s.rows << " cols " << s.cols << " tokens " << s.tokens << " at " << r << ", "
            << t;
      }
    }
  }
};

TEST_P(MatmulFloatTest, EveryShapeKeepsTheContract) {
  for (const char* const* isa = runnable(); *isa; ++isa) {
    for (const int64_t rows : {1, 4, 7, 67}) {
      for (const int64_t cols : {5, 16, 100, 576, 1000}) {
        for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 13}) check(*find(*isa), {rows, cols, tokens});
      }
    }
    check(*find(*isa), {67, 40, 200});  // more tokens than scratch holds sums for
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulFloatTest, testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& p) { return std::string(stoke::info(p.param).name); });

}  // namespace
}  // namespace stoke::kernels
