// The context where nobody names one: as much as the budget holds, and no bit different for it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/six_layers_test_util.h"
#include "formats/synth.h"
#include "stoke/stoke.h"

namespace stoke {
namespace {

// A model whose KV cache of the default context is much of what it needs.
class DefaultContext : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("stoke_default_context_" + std::to_string(getpid()) + ".gguf");
    formats::SynthShape shape = six_layers("llama");
    shape.kv_heads = 8;
    shape.context = 8192;
    ASSERT_TRUE(formats::write_synth({.shape = shape, .type = "q8_0", .seed = 5, .output = path_}).ok());
    const auto fit = inspect(path_, {.context = 512, .threads = 2});
    ASSERT_TRUE(fit.ok());
    enough_for_512_ = fit->memory_min_bytes + (int64_t{2} << 20);  // 1024 tokens would take 6 MiB more
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Result<std::unique_ptr<Model>> open_needing(int64_t tokens, int64_t context = 0) const {
    ModelOptions options{.memory_bytes = enough_for_512_, .context = context, .threads = 2};
    options.context_needed = [tokens](const Tokenizer&) -> Result<int64_t> { return tokens; };
    return Model::open(path_, options);
  }
  static uint64_t hash_of(Model& model) {
    auto session = model.new_session();
    const std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7};
    EXPECT_TRUE((*session)->prefill(prompt).ok());
    GenerateOptions how{.max_tokens = 8, .ignore_eos = true, .hash_logits = true};
    how.sampling.temperature = 0;
    const auto generated = (*session)->generate(how);
    EXPECT_TRUE(generated.ok());
    return generated.ok() ? generated->logits_hash : 0;
  }

  std::string path_;
  int64_t enough_for_512_ = 0;
};

TEST_F(DefaultContext, ShrinksToWhatFitsAndChangesNoBit) {
  uint64_t wanted = 0;
  {  // what it holds must be gone before the other counts what this process holds
    const auto whole = Model::open(path_, {.threads = 2});
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    EXPECT_EQ((*whole)->context(), 4096);
    EXPECT_EQ((*whole)->memory().context, "");
    wanted = hash_of(**whole);
  }
  const auto model = open_needing(40);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ((*model)->context(), 512);
  EXPECT_NE((*model)->memory().context.find("512 tokens instead of 4096"), std::string::npos);
  EXPECT_EQ(hash_of(**model), wanted);
}

TEST_F(DefaultContext, IsNoShorterThanNeededOrThanAskedFor) {
  const auto between = open_needing(500);
  ASSERT_TRUE(between.ok()) << between.status().message();
  EXPECT_EQ((*between)->context(), 512);
  EXPECT_NE(open_needing(2000).status().message().find("for a context of 2000"), std::string::npos);
  EXPECT_EQ(open_needing(1 << 20).status().code(), Code::kNoMemory);
  EXPECT_EQ(open_needing(40, 4096).status().code(), Code::kNoMemory);
  EXPECT_EQ(Model::open(path_, {.memory_bytes = enough_for_512_, .threads = 2}).status().code(), Code::kNoMemory);
  ModelOptions options{.memory_bytes = enough_for_512_, .threads = 2};
  options.context_needed = [](const Tokenizer&) -> Result<int64_t> { return Status(Code::kIo, "no prompt"); };
  EXPECT_EQ(Model::open(path_, options).status().message(), "no prompt");
}

}  // namespace
}  // namespace stoke
