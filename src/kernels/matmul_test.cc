// Every instruction set against the portable twin, bit for bit; one token against many, bit for bit; and the portable
// twin against a product in double precision over the dequantised values and the quantised activations.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/rows_test_util.h"

namespace stoke::kernels {
namespace {

struct Problem {
  DType type;
  int64_t rows, cols, tokens;
  std::vector<std::byte> w;
  std::vector<float> x;
};

Problem make_problem(DType type, int64_t rows, int64_t cols, int64_t tokens, uint32_t seed) {
  std::mt19937 rng(seed);
  Problem p{type, rows, cols, tokens, random_rows(type, rows, cols, rng), {}};
  std::normal_distribution<float> normal;
  p.x.resize(static_cast<size_t>(tokens * cols));
  for (float& v : p.x) v = normal(rng);
  return p;
}

struct Aligned {
  explicit Aligned(size_t bytes) : data(std::aligned_alloc(64, (bytes + 63) / 64 * 64)) {}
  ~Aligned() { std::free(data); }
  void* data;
};

std::vector<float> multiply(const Kernels& k, const Problem& p, int64_t t0, int64_t tokens, int64_t r0, int64_t r1) {
  const int64_t padded = p.cols / kActBlock * kActBlock == p.cols ? p.cols : 0;
  Aligned act(padded ? act_bytes(tokens, padded) : 64);
  Aligned scratch(scratch_bytes());
  MatmulArgs a;
  a.x = padded ? act_carve(act.data, tokens, padded) : ActView{.tokens = tokens, .k = p.cols};
  a.x.f = p.x.data() + t0 * p.cols;
  a.x.f_stride = p.cols;
  if (padded) k.quantize_acts(a.x, 0, tokens);
  const size_t bytes = row_bytes(p.type, p.cols);
  a.w = {p.type, {r0, r1}, p.cols, bytes, p.w.data() + static_cast<size_t>(r0) * bytes};
  std::vector<float> y(static_cast<size_t>(tokens * (r1 - r0)));
  a.y = y.data();
  a.y_stride = r1 - r0;
  a.scratch = scratch.data;
  k.matmul(a);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// What no byte can hold, and what a peak too small to divide by makes infinite.
TEST(QuantizeActs, SumsStayBounded) {
  constexpr int64_t kBlocks = 3;
  std::vector<float> x(kBlocks * kActBlock, 1.0F);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[kActBlock + 20] = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < kActBlock; ++i) x[2 * kActBlock + i] = i % 3 == 0 ? 0.0F : -1e-42F;
  for (const char* const* isa = runnable(); *isa; ++isa) {
    Aligned bytes(act_bytes(1, std::ssize(x)));
    ActView act = act_carve(bytes.data, 1, std::ssize(x));
    act.f = x.data();
    act.f_stride = std::ssize(x);
    find(*isa)->quantize_acts(act, 0, 1);
    for (int64_t half = 0; half < 2 * kBlocks; ++half) EXPECT_LE(std::abs(act.sum16[half]), 16 * 127) << *isa;
  }
}

class MatmulTest : public testing::TestWithParam<DType> {};

TEST_P(MatmulTest, EveryIsaGivesPortableBits) {
  for (int64_t tokens : {1, 2, 5, 16, 37}) {
    for (int64_t rows : {1, 16, 45}) {
      const Problem p = make_problem(GetParam(), rows, 768, tokens, 1);
      const auto want = multiply(*find("portable"), p, 0, tokens, 0, rows);
      for (const char* const* isa = runnable(); *isa; ++isa) {
        EXPECT_TRUE(same_bits(multiply(*find(*isa), p, 0, tokens, 0, rows), want))
            << *isa << " tokens " << tokens << " rows " << rows;
      }
    }
  }
}

// Rows are read in strips, cut where those would lie whole pages apart: Q8_0 of 1024 columns, 512 rows are.
TEST_P(MatmulTest, StripsGivePortableBits) {
  const Problem p = make_problem(GetParam(), 525, 1024, 2, 6);
  const auto want = multiply(*find("portable"), p, 0, 1, 0, 525);
  for (const char* const* isa = runnable(); *isa; ++isa) {
    const auto one = multiply(*find(*isa), p, 0, 1, 0, 525);
    EXPECT_TRUE(same_bits(one, want)) << *isa;
    const auto both = multiply(*find(*isa), p, 0, 2, 0, 525);
    EXPECT_EQ(0, std::memcmp(both.data(), want.data(), want.size() * sizeof(float))) << *isa;
  }
}

// Rows longer than a page are read otherwise.
TEST_P(MatmulTest, LongRowsGivePortableBits) {
  for (int64_t tokens : {1, 3}) {
    const Problem p = make_problem(GetParam(), 21, 16384, tokens, 5);
    const auto want = multiply(*find("portable"), p, 0, tokens, 0, 21);
    for (const char* const* isa = runnable(); *isa; ++isa) {
      EXPECT_TRUE(same_bits(multiply(*find(*isa), p, 0, tokens, 0, 21), want)) << *isa << " tokens " << tokens;
    }
  }
}

TEST_P(MatmulTest, OneTokenGivesTheBitsOfMany) {
  const Problem p = make_problem(GetParam(), 50, 1024, 20, 2);
  for (const char* const* isa = runnable(); *isa; ++isa) {
    const Kernels& k = *find(*isa);
    const auto all = multiply(k, p, 0, 20, 0, 50);
    for (int64_t t = 0; t < 20; ++t) {
      const auto one = multiply(k, p, t, 1, 0, 50);
      ASSERT_EQ(0, std::memcmp(one.data(), all.data() + t * 50, 50 * sizeof(float))) << *isa << " token " << t;
    }
  }
}

TEST_P(MatmulTest, RowRangesDoNotMatter) {
  const Problem p = make_problem(GetParam(), 50, 512, 3, 3);
  for (const char* const* isa = runnable(); *isa; ++isa) {
    const Kernels& k = *find(*isa);
    const auto all = multiply(k, p, 0, 3, 0, 50);
    const auto part = multiply(k, p, 0, 3, 7, 31);
    for (int64_t t = 0; t < 3; ++t) {
      ASSERT_EQ(0, std::memcmp(part.data() + t * 24, all.data() + t * 50 + 7, 24 * sizeof(float))) << *isa;
    }
  }
}

TEST_P(MatmulTest, PortableIsNearTheProductInDouble) {
  const Problem p = make_problem(GetParam(), 9, 512, 2, 4);
  const Kernels& k = *find("portable");
  const auto y = multiply(k, p, 0, 2, 0, 9);
  std::vector<float> w(512);
  for (int64_t r = 0; r < 9; ++r) {
    k.dequantize_row(p.type, p.w.data() + static_cast<size_t>(r) * row_bytes(p.type, 512), w.data(), 512);
    for (int64_t t = 0; t < 2; ++t) {
      double exact = 0, bound = 0;
      for (int64_t b = 0; b < 16; ++b) {
        double peak = 0, weight = 0;
        for (int64_t i = b * 32; i < b * 32 + 32; ++i) {
          exact += double{w[static_cast<size_t>(i)]} * p.x[static_cast<size_t>(t * 512 + i)];
          peak = std::max(peak, std::fabs(double{p.x[static_cast<size_t>(t * 512 + i)]}));
          weight += std::fabs(double{w[static_cast<size_t>(i)]});
        }
        // Rounding of activations: at most half a step of max/127 each; plus FP32 sums, far smaller.
        bound += weight * peak * (is_float(p.type) ? 1e-5 : 0.51 / 127);
      }
      EXPECT_NEAR(y[static_cast<size_t>(t * 9 + r)], exact, bound) << "row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTest, testing::ValuesIn([] {
                           std::vector<DType> types;
                           for (const DTypeInfo& t : all_dtypes()) types.push_back(t.type);
                           return types;
                         }()),
                         [](const auto& i) { return std::string(stoke::info(i.param).name); });

}  // namespace
}  // namespace stoke::kernels
