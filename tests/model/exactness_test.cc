// The exactness contract, on bits: a position's logits do not depend on how the prompt was cut, on what else is in the
// batch, on the number of threads, or on how many rows of a matrix a lease brings.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "formats/synth.h"
#include "tests/model/harness.h"

namespace stoke {
namespace {

// Families that between them take every path: fused and plain matrices, windows, soft caps, norms of all kinds, experts
// with and without a shared one, biases, sinks.
const char* const kModels[] = {"llama3", "gemma2", "gemma3", "phi3", "olmo2", "qwen2moe", "qwen3moe", "gpt-oss"};

std::string path_of(const std::string& name) { return "tests/data/model/" + name; }

std::vector<int32_t> some_tokens(int count, uint32_t seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    tokens.push_back(static_cast<int32_t>(3 + (seed >> 8) % 180));
  }
  return tokens;
}

std::unique_ptr<test::Harness> open(const std::string& name, const test::HarnessOptions& options) {
  auto opened = test::Harness::open(path_of(name), options);
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return opened.ok() ? std::move(*opened) : nullptr;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class ExactnessTest : public testing::TestWithParam<const char*> {};

TEST_P(ExactnessTest, AnyChunkingGivesTheSameBits) {
  auto h = open(GetParam(), {.max_batch = 128});
  ASSERT_NE(h, nullptr);
  const std::vector<int32_t> tokens = some_tokens(100, 7);
  const std::vector<float> whole = h->feed(h->pool->create_sequence(), tokens, 128);
  for (int64_t chunk : {1, 2, 3, 16, 17, 64}) {
    const kv::SeqId seq = h->pool->create_sequence();
    EXPECT_TRUE(same_bits(whole, h->feed(seq, tokens, chunk))) << "chunk " << chunk;
    h->pool->release(seq);
  }
}

TEST_P(ExactnessTest, AloneOrInABatchGivesTheSameBits) {
  auto h = open(GetParam(), {.max_batch = 128});
  ASSERT_NE(h, nullptr);
  const std::vector<int32_t> tokens = some_tokens(40, 11);
  const std::vector<float> alone = h->feed(h->pool->create_sequence(), tokens, 128);
  const std::vector<float> together = h->feed_together({{h->pool->create_sequence(), some_tokens(21, 12)},
                                                        {h->pool->create_sequence(), tokens},
                                                        {h->pool->create_sequence(), some_tokens(1, 13)},
                                                        {h->pool->create_sequence(), some_tokens(30, 14)}});
  const auto vocab = h->plan.config.vocab;
  const auto first = together.begin() + 21 * vocab;
  EXPECT_TRUE(same_bits(alone, {first, first + 40 * vocab}));
}

TEST_P(ExactnessTest, AnyNumberOfThreadsGivesTheSameBits) {
  const std::vector<int32_t> tokens = some_tokens(70, 17);
  std::vector<float> one;
  for (int threads : {1, 2, 4}) {
    auto h = open(GetParam(), {.threads = threads});
    ASSERT_NE(h, nullptr);
    const std::vector<float> logits = h->feed(h->pool->create_sequence(), tokens, 33);
    if (threads == 1) one = logits;
    EXPECT_TRUE(same_bits(one, logits)) << threads << " threads";
  }
}

TEST_P(ExactnessTest, FewRowsALeaseGiveTheSameBits) {
  const std::vector<int32_t> tokens = some_tokens(35, 19);
  auto all = open(GetParam(), {.threads = 2});
  auto few = open(GetParam(), {.threads = 2, .rows_at_once = 13});
  ASSERT_NE(all, nullptr);
  ASSERT_NE(few, nullptr);
  EXPECT_TRUE(same_bits(all->feed(all->pool->create_sequence(), tokens, 17),
                        few->feed(few->pool->create_sequence(), tokens, 17)));
  EXPECT_LE(few->source->most_leases(), model::kMaxLeases);
}

TEST_P(ExactnessTest, WantedRowsAloneGiveTheSameBits) {
  auto h = open(GetParam(), {});
  ASSERT_NE(h, nullptr);
  const std::vector<int32_t> tokens = some_tokens(30, 23);
  const std::vector<float> all = h->feed(h->pool->create_sequence(), tokens, 64);
  const kv::SeqId seq = h->pool->create_sequence();
  ASSERT_TRUE(h->pool->reserve(seq, 30).ok());
  const model::SequenceRun run{seq, 0, 30, 0};
  const std::vector<int64_t> outputs = {4, 29};
  ASSERT_TRUE(h->transformer->forward({tokens, std::span(&run, 1), outputs}).ok());
  const auto vocab = static_cast<size_t>(h->plan.config.vocab);
  std::vector<float> logits(vocab);
  for (size_t i = 0; i < outputs.size(); ++i) {
    ASSERT_TRUE(h->transformer->logits(static_cast<int64_t>(i), 1, logits.data()).ok());
    const auto row = all.begin() + outputs[i] * h->plan.config.vocab;
    EXPECT_TRUE(same_bits(logits, {row, row + h->plan.config.vocab}));
  }
}

// Quantised weights, dense and with experts: every type's single-token and batched products must agree, too.
class QuantizedExactnessTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantizedExactnessTest, AnyChunkingAndThreadsGiveTheSameBits) {
  const std::vector<int32_t> tokens = some_tokens(50, 29);
  for (int64_t experts : {0, 4}) {
    const std::string path = testing::TempDir() + "/stoke_exact_" + std::to_string(getpid()) + GetParam() +
                             std::to_string(experts) + ".gguf";
    const formats::SynthShape shape{.name = "tiny",
                                    .layers = 2,
                                    .dim = 256,
                                    .ffn = 512,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_dim = 64,
                                    .vocab = 512,
                                    .context = 256,
                                    .experts = experts,
                                    .experts_used = experts / 2};
    const auto written = formats::write_synth({.shape = shape, .type = GetParam(), .seed = 3, .output = path});
    ASSERT_TRUE(written.ok()) << written.status().message();
    std::vector<float> first;
    for (int threads : {1, 2}) {
      auto opened = test::Harness::open(path, {.threads = threads});
      ASSERT_TRUE(opened.ok()) << opened.status().message();
      test::Harness& h = **opened;
      for (int64_t chunk : {64, 1, 17}) {
        const kv::SeqId seq = h.pool->create_sequence();
        const std::vector<float> logits = h.feed(seq, tokens, chunk);
        if (first.empty()) first = logits;
        EXPECT_TRUE(same_bits(first, logits)) << threads << " threads, chunk " << chunk << ", experts " << experts;
        h.pool->release(seq);
      }
    }
    std::filesystem::remove(path);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, QuantizedExactnessTest,
                         testing::Values("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
                                         "iq4_nl", "iq4_xs", "mxfp4", "f16"),
                         [](const auto& param) { return std::string(param.param); });

INSTANTIATE_TEST_SUITE_P(Families, ExactnessTest, testing::ValuesIn(kModels), [](const auto& param) {
  std::string name = param.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace stoke
