// The quantisers: what they write is read back close to the input, no worse than the reference's (tools/
// make_quant_goldens.py holds its error on the same input), and degenerate blocks stay harmless.
#include "kernels/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace stoke::kernels {
namespace {

std::vector<float> read_input() {
  std::ifstream file("tests/data/quant/input.f32", std::ios::binary);
  EXPECT_TRUE(file.good());
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<float> x(bytes.size() / sizeof(float));
  std::memcpy(x.data(), bytes.data(), x.size() * sizeof(float));
  return x;
}

std::vector<float> round_trip(DType type, const std::vector<float>& x) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<std::byte> bytes(row_bytes(type, n));
  std::vector<float> y(x.size());
  quantize_row(type, x.data(), bytes.data(), n);
  find("portable")->dequantize_row(type, bytes.data(), y.data(), n);
  return y;
}

double rms_error(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i]) - y[i], 2);
  return std::sqrt(sum / static_cast<double>(x.size()));
}

class QuantizeTest : public testing::TestWithParam<DType> {};

TEST_P(QuantizeTest, ErrorIsNoWorseThanTheReference) {
  const std::vector<float> x = read_input();
  const double error = rms_error(x, round_trip(GetParam(), x));
  if (GetParam() == DType::kF32) {
    EXPECT_EQ(error, 0);
    return;
  }
  const auto reference = nlohmann::json::parse(std::ifstream("tests/data/quant/reference_rms.json"));
  const double limit = reference.at(info(GetParam()).name).get<double>();
  EXPECT_LE(error, 1.01 * limit) << "ratio " << error / limit;
  RecordProperty("ratio", std::to_string(error / limit));
}

TEST_P(QuantizeTest, ZerosStayZero) {
  const std::vector<float> zeros(512, 0.0f);
  EXPECT_EQ(round_trip(GetParam(), zeros), zeros);
}

// Constants, single spikes, one-sided blocks, tiny and large magnitudes: relative to the block's range, no element may
// be further off than a level and a half of the coarsest type.
TEST_P(QuantizeTest, OddBlocksComeBackNear) {
  for (const float scale : {1e-3f, 1.0f, 100.0f}) {
    std::vector<float> x(2048, 0.0f);
    for (size_t i = 0; i < 256; ++i) {
      x[i] = scale;
      x[256 + i] = -scale;
      x[512 + i] = i % 32 == 7 ? scale : 0.0f;
      x[768 + i] = scale * (1.0f + 0.001f * static_cast<float>(i % 32));
      x[1024 + i] = -scale * static_cast<float>(i % 32);
      x[1280 + i] = i % 2 ? scale : -scale;
      x[1536 + i] = scale * static_cast<float>(i);
      x[1792 + i] = i < 16 ? scale : scale * 1e-4f;
    }
    const std::vector<float> y = round_trip(GetParam(), x);
    for (size_t b = 0; b < x.size(); b += 256) {
      float top = 0;
      for (size_t i = b; i < b + 256; ++i) top = std::max(top, std::fabs(x[i]));
      for (size_t i = b; i < b + 256; ++i) ASSERT_NEAR(y[i], x[i], 0.25f * top) << "element " << i << " of " << scale;
    }
  }
}

TEST_P(QuantizeTest, NonFiniteElementsDoNoHarmElsewhere) {
  std::vector<float> x(768, 0.5f);
  x[300] = std::numeric_limits<float>::quiet_NaN();
  x[400] = std::numeric_limits<float>::infinity();
  const std::vector<float> y = round_trip(GetParam(), x);
  for (size_t i = 0; i < 256; ++i) ASSERT_NEAR(y[i], 0.5f, 0.05f) << i;
  for (size_t i = 512; i < 768; ++i) ASSERT_NEAR(y[i], 0.5f, 0.05f) << i;
}

std::vector<DType> types() {
  std::vector<DType> all;
  for (const DTypeInfo& t : all_dtypes()) all.push_back(t.type);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizeTest, testing::ValuesIn(types()),
                         [](const auto& p) { return std::string(stoke::info(p.param).name); });

}  // namespace
}  // namespace stoke::kernels
