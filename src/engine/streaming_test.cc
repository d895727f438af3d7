// Models bigger than their budget: the same bits as in memory under any budget, batch and number of threads; the budget
// obeyed; what is below the minimum refused with a remedy. Of stores also the steps of the ablation, and the log of
// what fires.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "engine/near_least_test_util.h"
#include "engine/six_layers_test_util.h"
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

Result<std::unique_ptr<Model>> open_near(const std::string& path, const ModelOptions& options) {
  return near_least(options, [&](const ModelOptions& with) { return Model::open(path, with); });
}

class StreamingTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    path_ = std::filesystem::temp_directory_path() /
            ("stoke_streaming_" + c.name + std::to_string(getpid()) + (c.store ? ".stoke" : ".gguf"));
    formats::SynthShape shape = six_layers(c.arch);
    if (c.experts > 0) shape.ffn = 256;
    shape.kv_heads = 4;
    shape.context = 512;
    shape.experts = c.experts;
    shape.experts_used = c.experts > 0 ? 3 : 0;
    shape.tied = c.tied;
    shape.activation = c.activation;
    const auto written = formats::write_synth({.shape = shape,
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
    int64_t foreseen = 0;  // bytes read a token
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
    // Another prompt: weights that took the first one's activations' room give it back.
    EXPECT_TRUE((*session)->prefill(std::span(prompt).first(30)).ok());
    how.max_tokens = 6;
    const auto more = (*session)->generate(how);
    if (!more.ok()) return out;
    return {generated->logits_hash + more->logits_hash, generated->tokens, (*model)->stats(),
            (*model)->memory().forecast.bytes_per_token};
  }

  // A budget that leaves room for this share of the weights, but not for all. What the process holds moves a little
  // meanwhile.
  int64_t budget(double share, const ModelOptions& options) {
    constexpr int64_t kDrift = int64_t{1} << 20;
    const auto fit = inspect(path_, options);
    EXPECT_TRUE(fit.ok()) << fit.status().message();
    const int64_t wanted = fit->memory_min_bytes + kDrift + static_cast<int64_t>(share * static_cast<double>(weights_));
    return std::max(fit->memory_min_bytes + kDrift, std::min(wanted, fit->memory_full_bytes - 3 * kDrift));
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
        // Near the whole, what the process gave back meanwhile can be what was missing.
        if (share < 0.8) {
          EXPECT_GT(streamed.stats.bytes_read, 0);
        }
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

// The first token guesses the experts of layers whose routers have not come yet.
TEST_P(StreamingTest, PromptTokenByToken) {
  if (GetParam().experts == 0) GTEST_SKIP() << "experts alone";
  ModelOptions options{.context = 128, .threads = 1, .batch = 1};
  const Answer whole = answer(options);
  for (const double share : {0.0, 0.3, 0.5, 0.8}) {
    SCOPED_TRACE(GetParam().name + " share " + std::to_string(share));
    options.memory_bytes = 0;
    options.memory_bytes = budget(share, options);
    EXPECT_EQ(answer(options).hash, whole.hash);
  }
}

// A token's misses are among its reads: what the prompt missed is not counted with them.
TEST_P(StreamingTest, HitRateIsDecodings) {
  if (GetParam().experts == 0 || GetParam().store) GTEST_SKIP() << "experts alone";
  ModelOptions options{.context = 128, .threads = 2, .batch = 70};
  options.memory_bytes = budget(0.8, options);
  const Stats stats = answer(options).stats;
  constexpr double kLookups = 6.0 * 3 * 3;  // layers, experts, matrices; no fewer
  ASSERT_GE(stats.cache_hit_rate, 0);
  EXPECT_LE((1 - stats.cache_hit_rate) * kLookups, stats.reads_per_token);
}

TEST_P(StreamingTest, BelowTheMinimumIsRefusedWithARemedy) {
  ModelOptions options{.context = 512, .threads = 2, .batch = 16};
  options.memory_bytes = budget(0, options) / 2;
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

constexpr const char* kAblations[] = {"dense", "bundles", "cache", "pipeline", "hot", "flash", "lru"};

class StoreStreamingTest : public StreamingTest {
 protected:
  std::string log_path() const { return path_ + ".firings"; }
  void TearDown() override {
    std::filesystem::remove(log_path());
    StreamingTest::TearDown();
  }
  std::string log() const {
    std::ifstream file(log_path());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
};

TEST_P(StoreStreamingTest, AblationChangesNoBit) {
  ModelOptions options{.context = 128, .threads = 2, .batch = 70};
  const Answer whole = answer(options);
  std::map<std::string, Stats> stats;
  int64_t foreseen_of_dense = 0;
  for (const std::string name : kAblations) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(GetParam().name + " " + name + " threads " + std::to_string(threads));
      options.threads = threads;
      options.ablation = name;
      options.memory_bytes = 0;
      EXPECT_EQ(answer(options).hash, whole.hash) << "in memory";
      options.memory_bytes = budget(0.4, options);
      const Answer streamed = answer(options);
      EXPECT_EQ(streamed.hash, whole.hash);
      EXPECT_EQ(streamed.tokens, whole.tokens);
      EXPECT_EQ(streamed.stats.ablation, name);
      stats[name] = streamed.stats;
      if (name == "dense") foreseen_of_dense = streamed.foreseen;
    }
  }
  EXPECT_LT(stats["dense"].cache_hit_rate, 0) << "nothing is looked up";
  EXPECT_EQ(stats["bundles"].cache_hit_rate, 0);
  for (const char* name : {"cache", "pipeline", "hot", "flash", "lru"}) {
    SCOPED_TRACE(name);
    EXPECT_GT(stats[name].cache_hit_rate, 0.05);
    EXPECT_GT(stats[name].cache_slots, 0);
    EXPECT_LE(stats[name].bytes_read_per_token, stats["bundles"].bytes_read_per_token);
  }
  for (const char* name : {"dense", "bundles"}) {
    EXPECT_EQ(stats[name].cache_slots, 0);
    EXPECT_GT(stats[name].reads_per_token, 1);
  }
  // Every record of a token's networks; misses of `bundles` lie so near each other here that it reads most, too.
  const double records = GetParam().experts > 0 ? 6.0 * 3 * 256 * (2 * 544) : 6.0 * 1536 * (2 * 288);
  EXPECT_GE(stats["dense"].bytes_read_per_token, records);
  EXPECT_GE(static_cast<double>(foreseen_of_dense), records);
  EXPECT_LE(static_cast<double>(foreseen_of_dense), stats["dense"].bytes_read_per_token);
}

// The log is what fired, whatever the memory, the threads and the step: one pass a decoded token, every layer in order.
TEST_P(StoreStreamingTest, FiringsAreLogged) {
  ModelOptions options{.context = 128, .threads = 2, .batch = 70, .firings = log_path()};
  const Answer whole = answer(options);
  const std::string text = log();
  for (const std::string name : {"bundles", "lru", "hot"}) {
    options.ablation = name;
    options.threads = name == "hot" ? 1 : 2;
    options.memory_bytes = 0;
    options.memory_bytes = budget(0.2, options);
    answer(options);
    EXPECT_TRUE(log() == text) << name;
  }
  std::istringstream lines(text);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const int64_t neurons = GetParam().experts > 0 ? 256 * GetParam().experts : 1536;
  EXPECT_EQ(line, "# firings: 6 layers of " + std::to_string(neurons) + " neurons");
  int64_t layers = 0;
  int64_t firings = 0;
  while (std::getline(lines, line)) {
    if (layers > 0 && layers % 6 == 0 && line.empty()) std::getline(lines, line);
    std::istringstream numbers(line);
    int64_t layer = -1;
    numbers >> layer;
    EXPECT_EQ(layer, layers++ % 6);
    for (int64_t before = -1, neuron = 0; numbers >> neuron; before = neuron, ++firings) {
      EXPECT_TRUE(neuron > before && neuron < neurons) << neuron;
    }
  }
  EXPECT_EQ(layers, 6 * whole.stats.generated_tokens);
  // Of all gates computed, those of the prompt's last token in the last layer are not in the log.
  const int64_t gates = GetParam().experts > 0 ? 3 * 256 : neurons;
  const double lookups = std::round(whole.stats.active_neuron_share * static_cast<double>(gates * (layers + 1)));
  EXPECT_GE(lookups, static_cast<double>(firings));
  EXPECT_LE(lookups, static_cast<double>(firings + gates));
}

TEST_P(StoreStreamingTest, WrongMeasurementsAreRefused) {
  const auto refused = [&](const ModelOptions& options) {
    const auto model = Model::open(path_, options);
    EXPECT_FALSE(model.ok());
    EXPECT_EQ(model.ok() ? Code::kOk : model.status().code(), Code::kInvalid);
    return model.ok() ? std::string() : model.status().message();
  };
  EXPECT_NE(refused({.context = 128, .ablation = "none"}).find("dense, bundles, cache"), std::string::npos);
  const std::string message = refused({.context = 128, .ablation = "dense", .firings = log_path()});
  EXPECT_NE(message.find(path_), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(log_path()));
  const auto model = Model::open(path_, {.context = 128, .firings = "/nowhere/firings"});
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.status().message().find("/nowhere/firings"), std::string::npos) << model.status().message();
}

INSTANTIATE_TEST_SUITE_P(Kinds, StoreStreamingTest,
                         testing::Values(Case{"reglu_ablation", "llama", "q4_0", 0, false, "relu", true},
                                         Case{"drelu_experts_ablation", "llama", "q8_0", 4, false, "drelu", true}),
                         [](const auto& info) { return info.param.name; });

TEST(StreamingFault, AblationOfWhatIsNoStoreIsRefused) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("stoke_no_store_" + std::to_string(getpid()) + ".gguf");
  auto shape = formats::free_shape("llama");
  ASSERT_TRUE(shape.ok());
  shape->layers = 1;
  shape->dim = 64;
  shape->ffn = 64;
  shape->heads = 2;
  shape->vocab = 512;
  ASSERT_TRUE(formats::write_synth({.shape = *shape, .type = "q8_0", .seed = 5, .output = path}).ok());
  const auto model = Model::open(path, {.context = 64, .ablation = "dense"});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), Code::kInvalid);
  EXPECT_NE(model.status().message().find("neuron stores"), std::string::npos) << model.status().message();
  std::filesystem::remove(path);
}

TEST(StreamingFault, TruncatedFileIsNamed) {
  const std::string path = std::filesystem::temp_directory_path() / ("stoke_cut_" + std::to_string(getpid()) + ".gguf");
  const auto written = formats::write_synth({.shape = six_layers("llama"), .type = "q8_0", .seed = 5, .output = path});
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
