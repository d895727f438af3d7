// Synthetic models do what they were asked for: counted over real forward passes, what fires, how skewed, how often
// again, and which experts are chosen.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "formats/firing_stats.h"
#include "formats/synth.h"
#include "tests/model/firing_counter.h"

namespace stoke {
namespace {

constexpr uint64_t kSeed = 5;
constexpr int64_t kTokens = 384;

formats::SynthShape relu_shape() {
  formats::SynthShape shape = formats::free_shape("llama").value();
  shape.layers = 3;
  shape.dim = 512;
  shape.ffn = 1536;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.vocab = 2000;
  shape.activation = "relu";
  return shape;
}

class SynthActivity : public ::testing::Test {
 protected:
  void SetUp() override {
    fmt::print("seed {}\n", kSeed);
    folder_ = std::filesystem::temp_directory_path() / ("stoke_activity_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<test::FiringCounter> run(const formats::SynthShape& shape, const formats::SynthActivity& activity,
                                           int64_t tokens = kTokens) {
    const std::string path = folder_ / "m.gguf";
    const auto made = formats::write_synth({.shape = shape, .seed = kSeed, .activity = activity, .output = path});
    EXPECT_TRUE(made.ok()) << made.status().message();
    auto counter = test::FiringCounter::open(path, tokens);
    EXPECT_TRUE(counter.ok()) << counter.status().message();
    uint64_t state = kSeed;
    for (int64_t i = 0; i < tokens; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      (*counter)->feed(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(shape.vocab)));
    }
    return std::move(*counter);
  }

  std::filesystem::path folder_;
};

using Skew = formats::SynthSkew;

TEST_F(SynthActivity, Published_26PercentTake80PercentOfFirings) {
  for (const double density : {0.05, 0.12, 0.2}) {
    const auto counter = run(relu_shape(), {.density = density});
    const test::FiringShares s = test::shares_of(counter->layers());
    EXPECT_NEAR(s.gate, density, density * 0.1);
    EXPECT_NEAR(s.top[2], 0.80, 0.03) << density;
    EXPECT_NEAR(s.up, 0.5, 0.01);
  }
}

TEST_F(SynthActivity, Measured_FollowsTheRealModel) {
  formats::SynthShape shape = relu_shape();
  shape.layers = 6;
  const auto counter = run(shape, {.density = 0.17, .skew = Skew::kMeasured});
  const test::FiringShares s = test::shares_of(counter->layers());
  EXPECT_NEAR(s.gate, 0.17, 0.017);
  EXPECT_NEAR(s.gate_low, 0.03, 0.01);
  EXPECT_NEAR(s.gate_high, 0.31, 0.03);
  EXPECT_NEAR(s.top[0], 0.32, 0.04);
  EXPECT_NEAR(s.top[1], 0.56, 0.04);
  EXPECT_NEAR(s.top[3], 0.80, 0.04);
  EXPECT_NEAR(s.again, 0.45, 0.03);
}

TEST_F(SynthActivity, Uniform_HasNoSkewAndKeepsItsDensityThroughManyLayers) {
  formats::SynthShape shape = relu_shape();
  shape.layers = 24;
  shape.dim = 256;
  shape.ffn = 768;
  const auto counter = run(shape, {.skew = Skew::kUniform}, 256);
  const test::FiringShares s = test::shares_of(counter->layers());
  EXPECT_NEAR(s.gate, 0.12, 0.012);
  EXPECT_NEAR(s.gate_low, 0.12, 0.02);
  EXPECT_NEAR(s.gate_high, 0.12, 0.02);
  EXPECT_NEAR(s.again, 0.12, 0.03);
  EXPECT_LT(s.top[1], 0.40);  // 0.25 but for chance
}

TEST_F(SynthActivity, FiringLocality_IsTheShareThatFiresAgain) {
  const auto counter = run(relu_shape(), {.firing_locality = 0.6});
  const test::FiringShares s = test::shares_of(counter->layers());
  EXPECT_NEAR(s.gate, 0.12, 0.012);
  EXPECT_NEAR(s.again, 0.6, 0.04);
}

TEST_F(SynthActivity, Drelu_FiresInsideRoutedExperts) {
  formats::SynthShape shape = relu_shape();
  shape.ffn = 512;
  shape.experts = 8;
  shape.experts_used = 2;
  shape.activation = "drelu";
  const auto counter = run(shape, {.router_locality = 0.45});
  const test::FiringShares s = test::shares_of(counter->layers());
  EXPECT_NEAR(s.gate, 0.12, 0.012);
  EXPECT_NEAR(s.up, 0.5, 0.01);
  EXPECT_NEAR(s.both, 0.06, 0.006);
  EXPECT_NEAR(s.expert_again, 0.45, 0.05);
  EXPECT_LT(s.expert_top[2], 0.6);  // no skew asked for: half of the experts take half of the uses
}

TEST_F(SynthActivity, Router_FollowsZipfAndLocality) {
  formats::SynthShape shape = formats::free_shape("qwen3moe").value();
  shape.layers = 4;
  shape.dim = 512;
  shape.ffn = 64;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.vocab = 2000;
  shape.experts = 64;
  shape.experts_used = 8;
  double top = 0, all = 0;
  for (int e = 1; e <= 64; ++e) (e <= 16 ? top : all) += 1 / std::sqrt(e);
  const auto counter = run(shape, {.router_skew = 0.5, .router_locality = 0.4});
  const test::FiringShares s = test::shares_of(counter->layers());
  EXPECT_NEAR(s.expert_top[1], top / (top + all), 0.05);
  EXPECT_NEAR(s.expert_again, 0.4, 0.04);
}

TEST_F(SynthActivity, Stats_AreTheFiringProbabilities) {
  const formats::SynthShape shape = relu_shape();
  const std::string path = folder_ / "s.json";
  ASSERT_TRUE(
      formats::write_synth({.shape = shape, .seed = kSeed, .output = folder_ / "s.gguf", .stats_output = path}).ok());
  const auto counter = run(shape, {});
  const formats::FiringStats stats = formats::read_firing(path).value();
  for (size_t layer = 0; layer < 3; ++layer) {
    const std::vector<int64_t>& fired = counter->layers()[layer].fired;
    ASSERT_EQ(stats.layers[layer].fired.size(), fired.size());
    double square = 0;
    for (size_t i = 0; i < fired.size(); ++i) {
      const double share = static_cast<double>(fired[i]) / kTokens;
      const double wanted = static_cast<double>(stats.layers[layer].fired[i]) / static_cast<double>(stats.tokens);
      square += std::pow(share - wanted, 2);
    }
    EXPECT_LT(std::sqrt(square / static_cast<double>(fired.size())), 0.05) << layer;
  }
}

TEST_F(SynthActivity, Write_RefusesWhatCannotBe) {
  auto refused = [&](const formats::SynthShape& shape, const formats::SynthActivity& activity, const std::string& type,
                     const char* wanted) {
    const auto made =
        formats::write_synth({.shape = shape, .type = type, .activity = activity, .output = folder_ / "x"});
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.status().code(), Code::kInvalid);
    EXPECT_NE(made.status().message().find(wanted), std::string::npos) << made.status().message();
  };
  refused(relu_shape(), {.density = 0.5}, "q4_0", "--density");
  refused(relu_shape(), {.density = 0.95}, "q4_0", "--density");
  refused(relu_shape(), {.firing_locality = 0.95}, "q4_0", "--firing-locality");
  refused(relu_shape(), {}, "q4_k_m", "bias");
  formats::SynthShape gemma = *formats::find_shape("gemma-270m");
  gemma.activation = "relu";
  refused(gemma, {}, "q4_0", "gemma3");
  formats::SynthShape narrow = relu_shape();
  narrow.dim = 64;
  refused(narrow, {}, "q4_0", "--dim");
}

}  // namespace
}  // namespace stoke
