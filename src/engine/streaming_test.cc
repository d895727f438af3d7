// Models bigger than their budget: the same bits as in memory under any budget, batch and number of threads; the budget
// obeyed; what is below the minimum refused with a remedy.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "formats/synth.h"
#include "stoke/stoke.h"

namespace stoke {
namespace {

struct Case {
  std::string name;
  std::string arch;
  std::string type;
  int64_t experts = 0;
  bool tied = false;
  std::string activation = {};
  bool store = false;
  bool hot_first = false;
  bool rates = true;
};

// What the process holds moves between two looks at it (under a sanitizer by megabytes): where that puts a budget below
// the minimum, a little more.
Result<std::unique_ptr<Model>> open_near(const std::string& path, ModelOptions options) {
  auto model = Model::open(path, options);
  for (int i = 0; i < 8 && !model.ok() && model.status().code() == Code::kNoMemory && options.memory_bytes > 0; ++i) {
    options.memory_bytes += int64_t{2} << 20;
    model = Model::open(path, options);
  }
  return model;
}

class StreamingTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    path_ = std::filesystem::temp_directory_path() /
            ("stoke_streaming_" + c.name + std::to_string(getpid()) + (c.store ? ".stoke" : ".gguf"));
    auto shape = formats::free_shape(c.arch);
    ASSERT_TRUE(shape.ok());
    shape->layers = 6;
    shape->dim = 512;
    shape->ffn = c.experts > 0 ? 256 : 1536;
    shape->heads = 8;
    shape->kv_heads = 4;
    shape->vocab = 2048;
    shape->context = 512;
    shape->experts = c.experts;
    shape->experts_used = c.experts > 0 ? 3 : 0;
    shape->tied = c.tied;
    shape->activation = c.activation;
    const auto written = formats::write_synth({.shape = *shape,
                                               .type = c.type,
                                               .seed = 5,
                                               .activity = {.hot_first = c.hot_first},
                                               .output = path_,
                                               .knows_firing = c.rates});
    ASSERT_TRUE(written.ok()) << written.status().message();
    weights_ = static_cast<int64_t>(written->bytes);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  struct Answer {
    uint64_t hash = 0;
    std::vector<int32_t> tokens;
    Stats stats;
  };
  // A prompt of 70 tokens and 12 greedy ones.
  Answer answer(const ModelOptions& options) {
    Answer out;
    auto model = open_near(path_, options);
    EXPECT_TRUE(model.ok()) << model.status().message();
    if (!model.ok()) return out;
    std::vector<int32_t> prompt(70);
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>((i * 37 + 11) % 2048);
    auto session = (*model)->new_session();
    EXPECT_TRUE(session.ok());
    const Status prefilled = (*session)->prefill(prompt);
    EXPECT_TRUE(prefilled.ok()) << prefilled.message();
    GenerateOptions how{.max_tokens = 12, .ignore_eos = true, .hash_logits = true};
    how.sampling.temperature = 0;
    const auto generated = (*session)->generate(how);
    EXPECT_TRUE(generated.ok()) << generated.status().message();
    if (!generated.ok()) return out;
    return {generated->logits_hash, generated->tokens, (*model)->stats()};
  }

  // A budget that leaves room for this share of the weights. What the process holds moves a little meanwhile.
  int64_t budget(double share, const ModelOptions& options) {
    const auto fit = inspect(path_, options);
    EXPECT_TRUE(fit.ok()) << fit.status().message();
    return fit->memory_min_bytes + (int64_t{1} << 20) + static_cast<int64_t>(share * static_cast<double>(weights_));
  }

  std::string path_;
  int64_t weights_ = 0;
};

TEST_P(StreamingTest, BudgetChangesNoBit) {
  ModelOptions options{.context = 128, .threads = 2};
  const Answer whole = answer(options);
  EXPECT_EQ(whole.stats.bytes_read_per_token, 0);
  for (const double share : {0.0, 0.2, 0.5, 0.8}) {
    for (const int64_t batch : {16, 70}) {
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(GetParam().name + " share " + std::to_string(share) + " batch " + std::to_string(batch) +
                     " threads " + std::to_string(threads));
        options.batch = batch;
        options.threads = threads;
        options.memory_bytes = 0;
        options.memory_bytes = budget(share, options);
        const Answer streamed = answer(options);
        EXPECT_EQ(streamed.hash, whole.hash);
        EXPECT_EQ(streamed.tokens, whole.tokens);
        EXPECT_GT(streamed.stats.bytes_read, 0);
      }
    }
  }
}

TEST_P(StreamingTest, TokenReadsSomethingAndNothingTwice) {
  ModelOptions options{.context = 128, .threads = 2, .batch = 16};
  options.memory_bytes = budget(0, options);
  const Answer streamed = answer(options);
  EXPECT_GT(streamed.stats.bytes_read, 0);
  // Reads are aligned supersets, which small blocks feel.
  EXPECT_LE(streamed.stats.bytes_read_per_token, static_cast<double>(weights_) * 1.3);
}

TEST_P(StreamingTest, BelowTheMinimumIsRefusedWithARemedy) {
  ModelOptions options{.context = 512, .threads = 2, .batch = 16};
  options.memory_bytes = budget(0, options) - (int64_t{6} << 20);
  const auto model = Model::open(path_, options);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), Code::kNoMemory);
  EXPECT_NE(model.status().message().find("at least"), std::string::npos) << model.status().message();
}

INSTANTIATE_TEST_SUITE_P(Kinds, StreamingTest,
                         testing::Values(Case{"dense", "llama", "q4_0"}, Case{"tied", "llama", "q8_0", 0, true},
                                         Case{"mix", "llama", "q4_k_m"}, Case{"experts", "qwen3moe", "q4_0", 16},
                                         Case{"mixtral", "llama", "q8_0", 8},
                                         Case{"reglu_store", "llama", "q4_0", 0, false, "relu", true},
                                         Case{"drelu_experts_store", "llama", "q8_0", 4, false, "drelu", true},
                                         Case{"no_rates_store", "llama", "q4_0", 0, false, "relu", true, false, false},
                                         Case{"hot_first_store", "llama", "q4_0", 0, false, "relu", true, true},
                                         Case{"hot_first_experts", "llama", "q8_0", 4, false, "drelu", true, true}),
                         [](const auto& info) { return info.param.name; });

TEST(StreamingFault, TruncatedFileIsNamed) {
  const std::string path = std::filesystem::temp_directory_path() / ("stoke_cut_" + std::to_string(getpid()) + ".gguf");
  auto shape = formats::free_shape("llama");
  ASSERT_TRUE(shape.ok());
  shape->layers = 6;
  shape->dim = 512;
  shape->ffn = 1536;
  shape->heads = 8;
  shape->vocab = 2048;
  const auto written = formats::write_synth({.shape = *shape, .type = "q8_0", .seed = 5, .output = path});
  ASSERT_TRUE(written.ok());
  ModelOptions options{.context = 128, .threads = 2, .batch = 16};
  const auto fit = inspect(path, options);
  ASSERT_TRUE(fit.ok());
  options.memory_bytes = fit->memory_min_bytes + (int64_t{1} << 20);
  auto model = open_near(path, options);
  ASSERT_TRUE(model.ok()) << model.status().message();
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  auto session = (*model)->new_session();
  ASSERT_TRUE(session.ok());
  const std::vector<int32_t> prompt = {1, 2, 3};
  const Status status = (*session)->prefill(prompt);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find(path), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("tensor"), std::string::npos) << status.message();
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace stoke
