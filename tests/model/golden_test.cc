// Tiny models of every family against transformers (tools/make_model_goldens.py): the logits at some positions of a
// prompt longer than the sliding windows, and 64 greedy tokens, from the folder and from its GGUF twin.
//
// Tolerance. Weights are exact in every file, arithmetic is FP32 on both sides, and both round K and V to F16. What
// remains is the order of summation (about sqrt(100) * 2^-24 relative a product) and, through it, single K or V
// elements that fall to the other side of a rounding boundary: 2^-11 of that element, one among hundreds in a score or
// a sum. Per layer that is well under 1e-4 of the state's size; a few layers and the head allow 1e-3 of the largest
// logit. Greedy tokens were chosen to win by at least twice that.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/model/harness.h"

namespace stoke {
namespace {

constexpr double kTolerance = 1e-3;  // of the largest logit
const char* const kFolder = "tests/data/model";

std::vector<std::string> model_paths() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    const std::string folder = entry.path().string();
    if (!std::filesystem::exists(folder + "/golden.json")) continue;
    paths.push_back(folder);
    if (std::filesystem::exists(folder + "/model.gguf")) paths.push_back(folder + "/model.gguf");
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

nlohmann::json golden_of(const std::string& path) {
  const bool gguf = path.ends_with(".gguf");
  const std::string folder = gguf ? std::filesystem::path(path).parent_path().string() : path;
  std::ifstream in(folder + "/golden.json");
  return nlohmann::json::parse(in);
}

void expect_row(const std::vector<float>& logits, int64_t row, const std::vector<float>& expected, double* worst) {
  double largest = 0;
  for (float x : expected) largest = std::max(largest, static_cast<double>(std::fabs(x)));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = logits[static_cast<size_t>(row) * expected.size() + i];
    *worst = std::max(*worst, std::fabs(got - expected[i]) / largest);
  }
}

class GoldenTest : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTest, LogitsAndGreedyTokensEqualTheOracles) {
  const nlohmann::json golden = golden_of(GetParam());
  auto opened = test::Harness::open(GetParam(), {});
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  test::Harness& h = **opened;
  const auto prompt = golden["prompt"].get<std::vector<int32_t>>();
  const auto expected = golden["tokens"].get<std::vector<int32_t>>();
  const kv::SeqId seq = h.pool->create_sequence();
  std::vector<float> logits = h.feed(seq, prompt, 64);
  double worst = 0;
  for (const auto& [position, row] : golden["logits"].items()) {
    const int64_t at = std::stoll(position);
    if (at < static_cast<int64_t>(prompt.size())) expect_row(logits, at, row.get<std::vector<float>>(), &worst);
  }
  EXPECT_LE(worst, kTolerance) << "at the prompt";
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(h.best_last(logits), expected[i]) << "greedy token " << i;
    if (i + 1 < expected.size()) logits = h.feed(seq, {expected[i]}, 1);
  }
  const std::string last = std::to_string(prompt.size() + expected.size() - 2);
  expect_row(logits, 0, golden["logits"][last].get<std::vector<float>>(), &worst);
  EXPECT_LE(worst, kTolerance) << "after the last token";
  RecordProperty("worst", std::to_string(worst));
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTest, testing::ValuesIn(model_paths()), [](const auto& param) {
  std::string name = param.param.substr(std::string(kFolder).size() + 1);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace stoke
