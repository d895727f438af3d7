// Norms, activations, softmax and rotary embedding: every instruction set against portable bit for bit, and portable
// against double precision. A tolerance is what the FP32 operations of the formula can lose: ulps are 2^-24 relative.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace stoke::kernels {
namespace {

using Floats = std::vector<float>;
constexpr double kUlp = 0x1p-24;  // relative error of one rounding

Floats normal(size_t n, uint32_t seed, float sigma = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> d(0, sigma);
  Floats x(n);
  for (float& v : x) v = d(random);
  return x;
}

const std::vector<int64_t> kLengths = {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 576, 1537};

// Runs f with every runnable table on the same input; the results must be those of portable to the bit.
Floats same_everywhere(const Floats& input, const std::function<void(const Kernels&, Floats&)>& f) {
  Floats expected = input;
  f(*find("portable"), expected);
  for (const char* const* isa = runnable(); *isa != nullptr; ++isa) {
    Floats x = input;
    f(*find(*isa), x);
    EXPECT_EQ(std::memcmp(x.data(), expected.data(), x.size() * sizeof(float)), 0) << *isa << ", n " << x.size();
  }
  return expected;
}

void expect_near(const Floats& got, const std::vector<double>& want, const std::vector<double>& tolerance) {
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance[i]) << i << " of " << got.size();
}

TEST(Elementwise, RmsNorm_MatchesDoubles) {
  for (const int64_t n : kLengths) {
    for (const bool plus_one : {false, true}) {
      const Floats x = normal(n, 1);
      const Floats w = normal(n, 2);
      const Floats got = same_everywhere(
          x, [&](const Kernels& k, Floats& out) { k.rms_norm(x.data(), w.data(), n, 1e-5f, plus_one, out.data()); });
      double squares = 0;
      for (const float v : x) squares += static_cast<double>(v) * v;
      std::vector<double> want, tolerance;
      for (int64_t i = 0; i < n; ++i) {
        const double weight = w[i] + (plus_one ? 1.0 : 0.0);
        want.push_back(x[i] * weight / std::sqrt(squares / n + 1e-5));
        // A lane sums n / 16 squares, four more in the tree, then mean, root, quotient and two products.
        tolerance.push_back((static_cast<double>(n) / 16 + 12) * kUlp * (std::abs(want[i]) + std::abs(x[i])));
      }
      expect_near(got, want, tolerance);
    }
  }
}

TEST(Elementwise, RmsNorm_MayWorkInPlace) {
  const Floats w = normal(100, 2);
  const Floats x = normal(100, 1);
  Floats apart(100);
  best().rms_norm(x.data(), w.data(), 100, 1e-5f, false, apart.data());
  Floats place = x;
  best().rms_norm(place.data(), w.data(), 100, 1e-5f, false, place.data());
  EXPECT_EQ(apart, place);
}

TEST(Elementwise, Sums_AreExactlyWhatTheySay) {
  for (const int64_t n : kLengths) {
    const Floats x = normal(n, 1);
    const Floats y = normal(n, 2);
    const Floats sum = same_everywhere(x, [&](const Kernels& k, Floats& v) { k.add(v.data(), y.data(), n); });
    const Floats scaled = same_everywhere(x, [&](const Kernels& k, Floats& v) { k.scale(v.data(), 0.3f, n); });
    const Floats axpy = same_everywhere(x, [&](const Kernels& k, Floats& v) { k.axpy(v.data(), y.data(), 0.3f, n); });
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(sum[i], x[i] + y[i]);
      ASSERT_EQ(scaled[i], x[i] * 0.3f);
      ASSERT_EQ(axpy[i], std::fma(0.3f, y[i], x[i]));
    }
  }
}

TEST(Elementwise, Softcap_MatchesDoublesAlsoNearZero) {
  Floats x = normal(4000, 3, 40);
  for (size_t i = 0; i < 1000; ++i) x[i] *= 1e-4f;
  const Floats got = same_everywhere(x, [](const Kernels& k, Floats& v) { k.softcap(v.data(), 30, 4000); });
  std::vector<double> want, tolerance;
  for (const float v : x) {
    want.push_back(30 * std::tanh(v / 30.0));
    tolerance.push_back(8 * kUlp * std::abs(want.back()));  // quotient, 3 ulp of tanh, product
  }
  expect_near(got, want, tolerance);
}

TEST(Elementwise, Softmax_MatchesDoubles) {
  for (const int64_t n : kLengths) {
    Floats x = normal(n, 4, 5);
    if (n > 10) x[3] = -std::numeric_limits<float>::infinity();
    const Floats got = same_everywhere(x, [n](const Kernels& k, Floats& v) { k.softmax(v.data(), n); });
    const double top = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) sum += std::exp(v - top);
    std::vector<double> want, tolerance;
    for (const float v : x) {
      want.push_back(std::exp(v - top) / sum);
      // The argument's rounding counts by its size; then exp, the lanes' sum and the quotient.
      const double argument = std::isinf(v) ? 0 : std::abs(v - top);
      tolerance.push_back((argument + static_cast<double>(n) / 16 + 12) * kUlp * want.back());
    }
    expect_near(got, want, tolerance);
    EXPECT_TRUE(n <= 10 || got[3] == 0);
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

using Gated = void (*)(const Kernels&, float*, const float*, int64_t);

void expect_gated(Gated run, double (*act)(double, double)) {
  for (const int64_t n : kLengths) {
    const Floats gate = normal(n, 5, 4);
    const Floats up = normal(n, 6, 4);
    const Floats got = same_everywhere(gate, [&](const Kernels& k, Floats& v) { run(k, v.data(), up.data(), n); });
    std::vector<double> want, tolerance;
    for (int64_t i = 0; i < n; ++i) {
      want.push_back(act(gate[i], up[i]));
      // Up to 8 roundings, of which those in exp's or tanh's argument count by its size (below 64 here). Gelu's
      // 1 + tanh cancels for negative gates: its error is one of x * up, not of the result.
      const double cancelled = std::abs(static_cast<double>(gate[i]) * up[i]);
      tolerance.push_back(72 * kUlp * std::abs(want[i]) + 8 * kUlp * cancelled);
    }
    expect_near(got, want, tolerance);
  }
}

TEST(Elementwise, GatedActivations_MatchDoubles) {
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.silu_mul(g, u, n); },
               [](double g, double u) { return g * sigmoid(g) * u; });
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.gelu_mul(g, u, n); },
               [](double g, double u) {
                 return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
               });
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.relu_mul(g, u, n); },
               [](double g, double u) { return std::max(g, 0.0) * u; });
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.drelu_mul(g, u, n); },
               [](double g, double u) { return std::max(g, 0.0) * std::max(u, 0.0); });
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.fatrelu_mul(g, u, n, 0.5f); },
               [](double g, double u) { return g > 0.5 ? g * u : 0; });
  expect_gated([](const Kernels& k, float* g, const float* u, int64_t n) { k.swiglu_oai_mul(g, u, n, 1.702f, 7); },
               [](double g, double u) {
                 const double c = std::min(g, 7.0);
                 return c * sigmoid(1.702f * c) * (std::clamp(u, -7.0, 7.0) + 1);
               });
}

TEST(Elementwise, Silu_SaturatesWithoutNan) {
  const Floats gate = {-1000, -100, -89, -88, -87, 87, 88, 89, 100, 1000, 0, -0.0f};
  const Floats up(gate.size(), 1);
  const int64_t n = static_cast<int64_t>(gate.size());
  const Floats got = same_everywhere(gate, [&](const Kernels& k, Floats& v) { k.silu_mul(v.data(), up.data(), n); });
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], std::max(gate[i], 0.0f), 1e-35) << gate[i];
}

TEST(Elementwise, NanIsNotHidden) {
  Floats x(20, 1);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  for (const char* const* isa = runnable(); *isa != nullptr; ++isa) {
    Floats v = x;
    find(*isa)->softcap(v.data(), 30, 20);
    EXPECT_TRUE(std::isnan(v[7])) << *isa;
    v = x;
    find(*isa)->silu_mul(v.data(), Floats(20, 1).data(), 20);
    EXPECT_TRUE(std::isnan(v[7])) << *isa;
  }
}

TEST(Elementwise, Rope_RotatesPairs) {
  for (const bool neox : {false, true}) {
    for (const int64_t n_rot : {2, 8, 32, 34, 64, 80, 128}) {
      const int64_t half = n_rot / 2;
      const Floats x = normal(n_rot + 16, 7);
      Floats cosines, sines;
      for (int64_t i = 0; i < half; ++i) {
        cosines.push_back(std::cos(0.1f * static_cast<float>(i * i)));
        sines.push_back(std::sin(0.1f * static_cast<float>(i * i)));
      }
      const Floats got = same_everywhere(
          x, [&](const Kernels& k, Floats& v) { k.rope(v.data(), cosines.data(), sines.data(), n_rot, neox); });
      std::vector<double> want(x.begin(), x.end());
      for (int64_t i = 0; i < half; ++i) {
        const int64_t a = neox ? i : 2 * i;
        const int64_t b = neox ? i + half : 2 * i + 1;
        want[a] = static_cast<double>(x[a]) * cosines[i] - static_cast<double>(x[b]) * sines[i];
        want[b] = static_cast<double>(x[b]) * cosines[i] + static_cast<double>(x[a]) * sines[i];
      }
      expect_near(got, want, std::vector<double>(want.size(), 2 * kUlp * 8));  // two roundings of values below 8
    }
  }
}

}  // namespace
}  // namespace stoke::kernels
