// The engine as its users see it, on a tiny synthetic model: exactness across batch, chunks and threads; limits;
// cancel; fork and truncate; no allocation while decoding. The C interface runs through the same.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <numeric>

#include "engine/memory_need.h"
#include "engine/stop_filter.h"
#include "formats/synth.h"
#include "stoke/stoke.h"
#include "stoke/stoke_c.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

// Not inlined: the compiler would see free() meet operator new.
__attribute__((noinline)) void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::malloc(bytes == 0 ? 1 : bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
__attribute__((noinline)) void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes == 0 ? 1 : bytes);
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace stoke {
namespace {

class EngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = std::filesystem::temp_directory_path() / ("stoke_engine_test_" + std::to_string(getpid()) + ".gguf");
    auto shape = formats::free_shape("llama");
    ASSERT_TRUE(shape.ok());
    shape->layers = 2;
    shape->dim = 64;
    shape->ffn = 96;
    shape->heads = 4;
    shape->kv_heads = 2;
    shape->vocab = 512;
    shape->context = 512;
    const auto written = formats::write_synth({.shape = *shape, .type = "q8_0", .seed = 7, .output = path_});
    ASSERT_TRUE(written.ok()) << written.status().message();
  }
  static void TearDownTestSuite() { std::filesystem::remove(path_); }

  static std::unique_ptr<Model> open(ModelOptions options = {}) {
    if (options.threads == 0) options.threads = 2;
    auto model = Model::open(path_, options);
    EXPECT_TRUE(model.ok()) << model.status().message();
    return std::move(*model);
  }

  static std::vector<int32_t> prompt(int64_t n) {
    std::vector<int32_t> tokens(static_cast<size_t>(n));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>((i * 37 + 11) % 512);
    return tokens;
  }

  static std::unique_ptr<Session> begin(Model& model, std::span<const int32_t> tokens) {
    auto session = model.new_session();
    EXPECT_TRUE(session.ok());
    const Status status = (*session)->prefill(tokens);
    EXPECT_TRUE(status.ok()) << status.message();
    return std::move(*session);
  }

  static GenerateOptions greedy(int64_t n) {
    GenerateOptions options{.max_tokens = n, .ignore_eos = true, .hash_logits = true};
    options.sampling.temperature = 0;
    return options;
  }

  static void check_allocations(Model& model);

  static std::string path_;
};

std::string EngineTest::path_;

TEST_F(EngineTest, LogitsHash_SameForAnyBatchThreadsAndChunks) {
  const auto tokens = prompt(100);
  uint64_t expected = 0;
  std::vector<int32_t> expected_tokens;
  for (const int64_t batch : {512, 1, 7, 64}) {
    for (const int threads : {1, 2}) {
      auto model = open({.threads = threads, .batch = batch});
      auto session = begin(*model, tokens);
      auto made = session->generate(greedy(20));
      ASSERT_TRUE(made.ok()) << made.status().message();
      if (expected == 0) expected = made->logits_hash;
      if (expected_tokens.empty()) expected_tokens = made->tokens;
      EXPECT_EQ(made->logits_hash, expected) << "batch " << batch << " threads " << threads;
      EXPECT_EQ(made->tokens, expected_tokens);
      EXPECT_EQ(made->stop_reason, StopReason::kLength);
    }
  }
}

TEST_F(EngineTest, DecodeTogether_SameBitsAsAlone) {
  auto model = open({.sequences = 3});
  std::vector<std::unique_ptr<Session>> together;
  std::vector<Session*> pointers;
  const std::vector<int32_t> next = {5, 77, 300};
  for (int i = 0; i < 3; ++i) {
    together.push_back(begin(*model, prompt(10 + 30 * i)));
    pointers.push_back(together.back().get());
  }
  ASSERT_TRUE(model->decode(pointers, next).ok());
  auto other = open();
  for (int i = 0; i < 3; ++i) {
    auto tokens = prompt(10 + 30 * i);
    tokens.push_back(next[static_cast<size_t>(i)]);
    auto alone = begin(*other, tokens);
    const auto a = alone->logits();
    const auto b = together[static_cast<size_t>(i)]->logits();
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << i;
    EXPECT_EQ(together[static_cast<size_t>(i)]->length(), std::ssize(tokens));
  }
}

TEST_F(EngineTest, Score_ShowsTheLogitsOfEachPosition) {
  auto model = open({.batch = 32});
  const auto tokens = prompt(90);
  auto session = begin(*model, {});
  std::vector<int64_t> shown;
  std::vector<float> at_70;
  ASSERT_TRUE(session
                  ->score(tokens, 45,
                          [&](int64_t index, std::span<const float> logits) {
                            shown.push_back(index);
                            if (index == 70) at_70.assign(logits.begin(), logits.end());
                          })
                  .ok());
  std::vector<int64_t> expected(45);
  std::iota(expected.begin(), expected.end(), 45);
  EXPECT_EQ(shown, expected);
  auto alone = begin(*model, std::span(tokens).first(71));
  EXPECT_TRUE(std::equal(at_70.begin(), at_70.end(), alone->logits().begin()));
}

TEST_F(EngineTest, ForkAndTruncate_ContinueAsIfComputedAnew) {
  auto model = open({.sequences = 2});
  auto session = begin(*model, prompt(100));
  auto fork = session->fork();
  ASSERT_TRUE(fork.ok());
  const auto first = session->generate(greedy(10));
  const auto second = (*fork)->generate(greedy(10));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->logits_hash, second->logits_hash);
  session->truncate(50);
  EXPECT_TRUE(session->logits().empty());
  EXPECT_FALSE(session->generate(greedy(1)).ok());
  ASSERT_TRUE(session->extend_to(prompt(100)).ok());
  const auto third = session->generate(greedy(10));
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->logits_hash, first->logits_hash);
  ASSERT_TRUE(session->extend_to(prompt(100)).ok());  // nothing new: only the last token is computed again
  EXPECT_EQ(session->generate(greedy(10))->logits_hash, first->logits_hash);
}

// Traced or not: the trace's rings (small ones here, so that they go round) are taken at opening.
TEST_F(EngineTest, Decode_AllocatesNothingAfterWarmUp) {
  for (const bool traced : {false, true}) {
    const std::string trace = path_ + ".trace.json";
    auto model = traced ? open({.trace_path = trace, .trace_events = 100}) : open();
    check_allocations(*model);
    ASSERT_TRUE(model->write_trace().ok());
    EXPECT_EQ(std::filesystem::exists(trace), traced);
    std::filesystem::remove(trace);
  }
}

void EngineTest::check_allocations(Model& model) {
  // Until the embedding is there, each of its rows is read from the file.
  ASSERT_TRUE(model.finish_loading().ok());
  auto session = begin(model, prompt(30));
  GenerateOptions options = greedy(200);
  int64_t seen = 0;
  int64_t start = 0;
  int64_t end = 0;
  const auto made = session->generate(options, [&](const TokenEvent&) {
    if (++seen == 8) start = allocations.load();
    if (seen == 200) end = allocations.load();
    return true;
  });
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(seen, 200);
  EXPECT_EQ(end - start, 0);
  Session* pointer = session.get();
  const int32_t token = 3;
  ASSERT_TRUE(model.decode(std::span(&pointer, 1), std::span(&token, 1)).ok());
  const int64_t before = allocations.load();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(model.decode(std::span(&pointer, 1), std::span(&token, 1)).ok());
  EXPECT_EQ(allocations.load() - before, 0);
}

TEST_F(EngineTest, FinishLoading_EveryWeightIsThereBeforeAnyPass) {
  const auto model = open();
  ASSERT_TRUE(model->finish_loading().ok());
  const Stats loaded = model->stats();
  EXPECT_GT(loaded.weights_loaded_s, 0);
  EXPECT_EQ(model->stats().weights_loaded_s, loaded.weights_loaded_s);
}

TEST_F(EngineTest, Context_IsALimit) {
  auto model = open({.context = 64});
  auto session = model->new_session();
  ASSERT_TRUE(session.ok());
  const Status too_long = (*session)->prefill(prompt(65));
  EXPECT_EQ(too_long.code(), Code::kContextFull);
  EXPECT_NE(too_long.message().find("65 tokens"), std::string::npos) << too_long.message();
  ASSERT_TRUE((*session)->prefill(prompt(60)).ok());
  const auto made = (*session)->generate(greedy(100));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->stop_reason, StopReason::kContext);
  EXPECT_EQ(made->tokens.size(), 5U);  // four more positions, and a last token that needs none
  EXPECT_FALSE(Model::open(path_, {.context = 513}).ok());
}

TEST_F(EngineTest, Cancel_KeepsWhatIsThere) {
  auto model = open();
  auto session = begin(*model, prompt(20));
  CancelFlag cancel{false};
  GenerateOptions options = greedy(100);
  options.cancel = &cancel;
  int seen = 0;
  const auto made = session->generate(options, [&](const TokenEvent&) {
    if (++seen == 5) cancel = true;
    return true;
  });
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->stop_reason, StopReason::kCancelled);
  EXPECT_EQ(made->tokens.size(), 5U);
  EXPECT_EQ(session->prefill(prompt(5), &cancel).code(), Code::kCancelled);
  cancel = false;
  EXPECT_TRUE(session->extend_to(prompt(25), &cancel).ok());
}

TEST_F(EngineTest, Memory_TooLittleIsRefusedWithAdvice) {
  const auto refused = Model::open(path_, {.memory_bytes = 1 << 20, .threads = 2});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kNoMemory);
  for (const char* part : {"needs", "at least", "--memory", "lower: -c"}) {
    EXPECT_NE(refused.status().message().find(part), std::string::npos) << refused.status().message();
  }
  const auto fit = inspect(path_, {.threads = 2});
  ASSERT_TRUE(fit.ok());
  EXPECT_LE(fit->memory_min_bytes, fit->memory_full_bytes);
  EXPECT_TRUE(fit->fits);
  const MemoryReport& r = fit->report;
  EXPECT_EQ(r.total, fit->memory_full_bytes);
  EXPECT_EQ(r.total, r.weights + r.kv + r.activations + r.text + r.process);
}

TEST_F(EngineTest, Options_NonsenseIsNamed) {
  EXPECT_NE(Model::open(path_, {.isa = "z80"}).status().message().find("portable"), std::string::npos);
  EXPECT_FALSE(Model::open(path_, {.kv_type = "f8"}).ok());
  EXPECT_FALSE(Model::open(path_, {.quant = "q9"}).ok());
  EXPECT_EQ(Model::open("/nonexistent.gguf", {}).status().code(), Code::kNotFound);
  auto model = open();
  auto session = model->new_session();
  EXPECT_EQ((*session)->prefill(std::vector<int32_t>{512}).code(), Code::kInvalid);
  EXPECT_EQ((*session)->prefill(std::vector<int32_t>{-1}).code(), Code::kInvalid);
}

TEST_F(EngineTest, CInterface_GivesTheSameTokens) {
  auto model = open();
  const auto expected = begin(*model, prompt(30))->generate(greedy(10));
  stoke_model_options model_options;
  stoke_model_defaults(&model_options);
  model_options.threads = 2;
  stoke_model* c_model = nullptr;
  ASSERT_EQ(stoke_model_open(path_.c_str(), &model_options, &c_model), STOKE_OK) << stoke_last_error();
  stoke_session* session = nullptr;
  ASSERT_EQ(stoke_session_new(c_model, &session), STOKE_OK);
  const auto tokens = prompt(30);
  ASSERT_EQ(stoke_session_prefill(session, tokens.data(), tokens.size()), STOKE_OK);
  stoke_generate_options options;
  stoke_generate_defaults(&options);
  options.max_tokens = 10;
  options.temperature = 0;
  options.ignore_eos = 1;
  std::vector<int32_t> got;
  const auto collect = [](void* user, int32_t token, const char*, size_t) {
    if (token >= 0) static_cast<std::vector<int32_t>*>(user)->push_back(token);
    return 1;
  };
  stoke_stop stop = STOKE_STOP_EOS;
  ASSERT_EQ(stoke_session_generate(session, &options, collect, &got, &stop), STOKE_OK);
  EXPECT_EQ(got, expected->tokens);
  EXPECT_EQ(stop, STOKE_STOP_LENGTH);
  EXPECT_NE(stoke_session_logits(session), nullptr);
  stoke_session_free(session);
  stoke_model_free(c_model);
  EXPECT_EQ(stoke_model_open("/nonexistent.gguf", nullptr, &c_model), STOKE_NOT_FOUND);
  EXPECT_NE(std::string(stoke_last_error()).find("/nonexistent.gguf"), std::string::npos);
}

TEST(StopFilter, HoldsBackWhatMayBecomeAStop) {
  const std::vector<std::string> stops = {"END", "\n\n"};
  std::string text;
  engine::StopFilter filter(stops, &text);
  EXPECT_EQ(filter.push("a E"), "a ");
  EXPECT_EQ(filter.push("N"), "");
  EXPECT_EQ(filter.push("X\n"), "ENX");
  EXPECT_EQ(filter.push("b"), "\nb");
  EXPECT_EQ(filter.push("cEND and more"), "c");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(text, "a ENX\nbc");
  std::string rest;
  engine::StopFilter open_end(stops, &rest);
  EXPECT_EQ(open_end.push("xEN"), "x");
  EXPECT_EQ(open_end.finish(""), "EN");
}

}  // namespace
}  // namespace stoke
