// Recording what fires: the counts of a counter that sees single products; the same whatever batch, threads and budget.
#include "engine/record_firing.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "engine/near_least_test_util.h"
#include "formats/synth.h"
#include "tests/model/firing_counter.h"

namespace stoke {
namespace {

constexpr const char* kText = "The quick brown fox jumps over the lazy dog, and then it sleeps until the sun is gone.";

class RecordFiring : public testing::TestWithParam<int64_t> {  // experts
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("stoke_record_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const char* name) const {
    formats::SynthShape shape = formats::free_shape("llama").value();
    shape.layers = 4;
    shape.dim = 256;
    shape.ffn = GetParam() > 0 ? 288 : 1216;
    shape.heads = 4;
    shape.vocab = 1000;
    shape.context = 256;
    shape.experts = GetParam();
    shape.experts_used = GetParam() > 0 ? 2 : 0;
    shape.activation = GetParam() > 0 ? "drelu" : "relu";
    const std::string path = folder_ / name;
    EXPECT_TRUE(formats::write_synth({.shape = shape, .type = "q8_0", .seed = 3, .output = path}).ok());
    return path;
  }
  static formats::FiringStats record(const std::string& path, const ModelOptions& how) {
    const auto stats = near_least(how, [&](const ModelOptions& with) {
      return engine::record_firing({.model = path, .how = with, .text = kText});
    });
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : formats::FiringStats();
  }
  static void expect_same(const formats::FiringStats& a, const formats::FiringStats& b) {
    ASSERT_EQ(a.layers.size(), b.layers.size());
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.fingerprint, b.fingerprint);
    for (size_t l = 0; l < a.layers.size(); ++l) {
      EXPECT_EQ(a.layers[l].tokens, b.layers[l].tokens) << l;
      EXPECT_EQ(a.layers[l].fired, b.layers[l].fired) << l;
    }
  }
  std::filesystem::path folder_;
};

TEST_P(RecordFiring, CountsWhatFires) {
  const std::string path = write("m.gguf");
  const formats::FiringStats stats = record(path, {.context = 128, .threads = 2, .batch = 32});
  const auto tokens = (*Tokenizer::open(path))->encode(kText);
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(stats.tokens, std::ssize(*tokens));
  const auto counter = test::FiringCounter::open(path, 128);
  ASSERT_TRUE(counter.ok());
  for (const int32_t token : *tokens) (*counter)->feed(token);
  for (size_t l = 0; l < stats.layers.size(); ++l) {
    const test::LayerCounts& wanted = (*counter)->layers()[l];
    EXPECT_EQ(stats.layers[l].tokens, wanted.used) << l;
    ASSERT_EQ(stats.layers[l].fired.size(), wanted.fired.size());
    for (size_t i = 0; i < wanted.fired.size(); ++i)
      ASSERT_EQ(stats.layers[l].fired[i], wanted.fired[i]) << l << ":" << i;
  }
}

TEST_P(RecordFiring, ScheduleChangesNothing) {
  for (const char* name : {"m.gguf", "m.stoke"}) {
    SCOPED_TRACE(name);
    const std::string path = write(name);
    const formats::FiringStats whole = record(path, {.context = 32, .threads = 2});
    expect_same(record(path, {.context = 32, .threads = 1, .batch = 7}), whole);
    ModelOptions least{.context = 32, .threads = 2, .batch = 16};
    const auto fit = inspect(path, least);
    ASSERT_TRUE(fit.ok());
    least.memory_bytes = fit->memory_min_bytes + (int64_t{3} << 20);
    expect_same(record(path, least), whole);
  }
}

INSTANTIATE_TEST_SUITE_P(Experts, RecordFiring, testing::Values(0, 4));

TEST(RecordFiringOf, ModelsThatDoNotFireAreRefused) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("stoke_silu_" + std::to_string(::getpid()) + ".gguf");
  formats::SynthShape shape = formats::free_shape("llama").value();
  shape.layers = 1;
  shape.dim = 64;
  shape.ffn = 96;
  shape.heads = 2;
  shape.vocab = 512;
  ASSERT_TRUE(formats::write_synth({.shape = shape, .type = "q8_0", .output = path}).ok());
  const auto stats = engine::record_firing({.model = path, .how = {}, .text = "x"});
  std::filesystem::remove(path);
  ASSERT_FALSE(stats.ok());
  EXPECT_EQ(stats.status().code(), Code::kUnsupported);
  EXPECT_NE(stats.status().message().find("relu"), std::string::npos) << stats.status().message();
}

}  // namespace
}  // namespace stoke
