// Synthetic models: what is written opens again, is the same for the same seed, and leaves nothing behind on failure.
#include "formats/synth.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "formats/model_file.h"
#include "formats/synth_blocks.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace stoke::formats {
namespace {

SynthShape tiny() {
  SynthShape shape = free_shape("llama").value();
  shape.layers = 9;
  shape.dim = 256;
  shape.ffn = 512;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.vocab = 300;
  return shape;
}

class Synth : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("stoke_synth_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const char* name) const { return folder_ / name; }
  std::string bytes_of(const char* name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  bool folder_is_empty() const { return std::filesystem::is_empty(folder_); }
  ModelFile make(const SynthShape& shape, const std::string& type, const char* name = "m.gguf") {
    SynthOptions options{.shape = shape, .type = type, .output = path(name)};
    Result<SynthSummary> summary = write_synth(options);
    EXPECT_TRUE(summary.ok()) << summary.status().message();
    Result<ModelFile> model = open_model_file(path(name));
    EXPECT_TRUE(model.ok()) << model.status().message();
    return std::move(model).value();
  }

  std::filesystem::path folder_;
};

TEST_F(Synth, Write_OpensAgainInEveryType) {
  for (const std::string& type : mix_names()) {
    ModelFile model = make(tiny(), type);
    EXPECT_EQ(model.tensors.size(), 3U + 9 * 9) << type;
    int64_t width = 0;
    EXPECT_TRUE(model.get("llama.embedding_length", &width) && width == 256);
    EXPECT_EQ(std::get<std::vector<std::string>>(*model.array("tokenizer.ggml.tokens")).size(), 300U);
    if (find_dtype(type) != nullptr) {
      EXPECT_EQ(model.find("blk.8.ffn_down.weight")->type, find_dtype(type)->type);
    }
  }
}

// As llama-quantize types a model of nine layers: more bits in the first and last eighth and every third between.
TEST_F(Synth, Q4KM_FollowsTheMix) {
  ModelFile model = make(tiny(), "q4_k_m");
  const std::set<int> more = {0, 3, 6, 7, 8};
  for (int layer = 0; layer < 9; ++layer) {
    DType wanted = more.count(layer) != 0 ? DType::kQ6_K : DType::kQ4_K;
    std::string prefix = "blk." + std::to_string(layer);
    EXPECT_EQ(model.find(prefix + ".attn_v.weight")->type, wanted) << layer;
    EXPECT_EQ(model.find(prefix + ".ffn_down.weight")->type, wanted) << layer;
    EXPECT_EQ(model.find(prefix + ".attn_k.weight")->type, DType::kQ4_K);
    EXPECT_EQ(model.find(prefix + ".attn_norm.weight")->type, DType::kF32);
  }
  EXPECT_EQ(model.find("output.weight")->type, DType::kQ6_K);
  EXPECT_EQ(model.find("token_embd.weight")->type, DType::kQ4_K);
}

TEST_F(Synth, Q4KM_FallsBackWhereRowsAreNotWholeBlocks) {
  SynthShape shape = tiny();
  shape.dim = 160;
  shape.head_dim = 64;
  shape.tied = true;
  ModelFile model = make(shape, "q4_k_m");
  EXPECT_EQ(model.find("token_embd.weight")->type, DType::kQ8_0);
  EXPECT_EQ(model.find("blk.1.attn_q.weight")->type, DType::kQ5_0);
  EXPECT_EQ(model.find("blk.0.attn_v.weight")->type, DType::kQ8_0);
  EXPECT_EQ(model.find("blk.0.ffn_down.weight")->type, DType::kQ6_K);
  EXPECT_EQ(model.find("output.weight"), nullptr);
  shape.dim = 100;
  EXPECT_EQ(make(shape, "q4_k_m").find("blk.1.attn_q.weight")->type, DType::kF16);
}

TEST_F(Synth, Write_MakesEveryNamedShape) {
  for (const std::string& name : shape_names()) {
    SynthShape shape = *find_shape(name);
    EXPECT_TRUE(complete_shape(&shape).ok()) << name;
    // The same structure, small enough to write.
    shape.layers = 1;
    shape.dim = 128;
    shape.ffn = 64;
    shape.vocab = 300;
    ModelFile model = make(shape, "q4_0");
    std::string arch;
    EXPECT_TRUE(model.get("general.architecture", &arch) && arch == shape.arch);
    EXPECT_EQ(model.find("blk.0.ffn_gate_inp.weight") != nullptr, shape.experts > 0) << name;
    EXPECT_EQ(model.find("blk.0.attn_q_norm.weight") != nullptr, arch != "llama") << name;
    EXPECT_EQ(model.find("output.weight") == nullptr, shape.tied) << name;
  }
}

TEST_F(Synth, Write_RepeatsItselfBySeed) {
  SynthOptions options{.shape = tiny(), .seed = 1, .output = path("a")};
  ASSERT_TRUE(write_synth(options).ok());
  options.output = path("b");
  ASSERT_TRUE(write_synth(options).ok());
  options.output = path("c");
  options.seed = 2;
  ASSERT_TRUE(write_synth(options).ok());
  EXPECT_TRUE(bytes_of("a") == bytes_of("b"));
  EXPECT_FALSE(bytes_of("a") == bytes_of("c"));
}

TEST_F(Synth, Write_RefusesImpossibleShapes) {
  auto refused = [&](auto change, const char* wanted) {
    SynthOptions options{.shape = tiny(), .output = path("x")};
    change(options);
    Result<SynthSummary> summary = write_synth(options);
    ASSERT_FALSE(summary.ok());
    EXPECT_EQ(summary.status().code(), Code::kInvalid);
    EXPECT_NE(summary.status().message().find(wanted), std::string::npos) << summary.status().message();
  };
  refused([](SynthOptions& o) { o.shape.layers = 0; }, "--layers");
  refused([](SynthOptions& o) { o.shape.dim = -1; }, "--dim");
  refused([](SynthOptions& o) { o.shape.dim = int64_t{1} << 40; }, "--dim");
  refused([](SynthOptions& o) { o.shape.kv_heads = 3; }, "--kv-heads");
  refused([](SynthOptions& o) { o.shape.head_dim = 63; }, "--head-dim");
  refused([](SynthOptions& o) { o.shape.vocab = 100; }, "--vocab");
  refused([](SynthOptions& o) { o.shape.experts = 4; }, "--experts-used");
  refused([](SynthOptions& o) { o.type = "q9"; }, "q4_k_m");
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(Synth, Write_LeavesNothingWhenStopped) {
  SynthOptions options{.shape = tiny(), .output = path("x")};
  options.progress = [](uint64_t done, uint64_t total) { return done < total / 2; };
  Result<SynthSummary> summary = write_synth(options);
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().code(), Code::kCancelled);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(Synth, Write_SaysWhenThereIsNoRoom) {
  SynthOptions options{.shape = tiny(), .type = "f32", .output = path("x")};
  options.shape.dim = options.shape.ffn = 1 << 18;
  options.shape.head_dim = 64;
  Result<SynthSummary> summary = write_synth(options);  // terabytes: refused before anything is written
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().code(), Code::kNoSpace) << summary.status().message();
  EXPECT_TRUE(folder_is_empty());
}

// A file size limit stands in for a disk that fills up while writing.
TEST_F(Synth, Write_LeavesNothingWhenTheDiskFills) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = {.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  Result<SynthSummary> summary = write_synth({.shape = tiny(), .output = path("x")});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().code(), Code::kNoSpace) << summary.status().message();
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(Synth, Write_SaysWhenItMayNotWrite) {
  Result<SynthSummary> absent = write_synth({.shape = tiny(), .output = path("no/such/folder/x")});
  EXPECT_EQ(absent.status().code(), Code::kIo);
  Result<SynthSummary> device = write_synth({.shape = tiny(), .output = "/dev/null"});
  EXPECT_EQ(device.status().code(), Code::kInvalid);
}

// Decodes Q4_0 and Q8_0 by hand: the deviation is the one asked for and the mean is about zero.
TEST(SynthBlocks, Fill_HasTheDeviationAskedFor) {
  constexpr size_t kBlocks = 4096;
  constexpr double kDeviation = 0.02;
  std::vector<BlockQ4_0> q4(kBlocks);
  BlockSource(DType::kQ4_0, kDeviation, 7).fill(std::as_writable_bytes(std::span(q4)));
  std::vector<BlockQ8_0> q8(kBlocks);
  BlockSource(DType::kQ8_0, kDeviation, 7).fill(std::as_writable_bytes(std::span(q8)));
  double sum4 = 0, square4 = 0, sum8 = 0, square8 = 0;
  for (size_t b = 0; b < kBlocks; ++b) {
    for (int i = 0; i < 32; ++i) {
      int nibble = i < 16 ? q4[b].qs[i] & 15 : q4[b].qs[i - 16] >> 4;
      double value4 = half_to_float(q4[b].d) * (nibble - 8);
      double value8 = half_to_float(q8[b].d) * q8[b].qs[i];
      EXPECT_NE(q8[b].qs[i], -128);
      sum4 += value4;
      square4 += value4 * value4;
      sum8 += value8;
      square8 += value8 * value8;
    }
  }
  constexpr double kCount = kBlocks * 32;
  EXPECT_NEAR(std::sqrt(square4 / kCount), kDeviation, kDeviation * 0.02);
  EXPECT_NEAR(std::sqrt(square8 / kCount), kDeviation, kDeviation * 0.02);
  EXPECT_NEAR(sum4 / kCount, 0, kDeviation * 0.02);
  EXPECT_NEAR(sum8 / kCount, 0, kDeviation * 0.02);
}

}  // namespace
}  // namespace stoke::formats
