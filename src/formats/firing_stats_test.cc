// Firing statistics: written and read back, refused where damaged or of another model.
#include "formats/firing_stats.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tensor/half.h"

namespace stoke::formats {
namespace {

class FiringStatsTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  void write(const std::string& text) { std::ofstream(path_) << text; }
  void refused(const std::string& text, const std::string& says) {
    write(text);
    const auto read = read_firing(path_);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.status().code(), Code::kCorrupt);
    EXPECT_NE(read.status().message().find(says), std::string::npos) << read.status().message();
    EXPECT_NE(read.status().message().find(path_), std::string::npos) << read.status().message();
  }
  FiringStats some() const {
    return {.model = "a \"model\"",
            .fingerprint = 0x00ffee0123456789,
            .tokens = 8,
            .layers = {{.tokens = {8}, .fired = {0, 8, 2, 4}}, {.tokens = {3, 5}, .fired = {1, 3, 5, 0}}}};
  }

  std::string path_ = std::filesystem::temp_directory_path() / ("stoke_firing_" + std::to_string(::getpid()) + ".json");
};

TEST_F(FiringStatsTest, Read_GivesWhatWasWritten) {
  const FiringStats stats = some();
  ASSERT_TRUE(write_firing(stats, path_).ok());
  const auto read = read_firing(path_);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->model, stats.model);
  EXPECT_EQ(read->fingerprint, stats.fingerprint);
  EXPECT_EQ(read->tokens, 8);
  ASSERT_EQ(read->layers.size(), 2U);
  EXPECT_EQ(read->layers[1].tokens, stats.layers[1].tokens);
  EXPECT_EQ(read->layers[1].fired, stats.layers[1].fired);
  EXPECT_EQ(read->layers[1].experts(), 2);
  EXPECT_EQ(read->layers[1].neurons(), 2);
  const std::vector<uint16_t> rates = firing_rates(*read, 0);
  ASSERT_EQ(rates.size(), 4U);
  EXPECT_EQ(half_to_float(rates[1]), 1.0F);
  EXPECT_EQ(half_to_float(rates[2]), 0.25F);
  EXPECT_EQ(rates[1], kFiringRateMax);
}

TEST_F(FiringStatsTest, Read_RefusesWhatIsDamaged) {
  const std::string head =
      R"({"format": "stoke-firing-2", "model": "m", "fingerprint": "0123456789abcdef", "tokens": 4, "layers": )";
  refused(R"({"format": "stoke-firing-1", "layers": [[0.5]]})", "format");
  refused(head + "3}", "layers");
  refused(head + "[]}", "layers");
  refused(head + "[[1]]}", "layers[0]");
  refused(head + R"([{"tokens": [4], "fired": [1, 5]}]})", "layers[0].fired");
  refused(head + R"([{"tokens": [4], "fired": [1, -1]}]})", "layers[0].fired");
  refused(head + R"([{"tokens": [4, 4], "fired": [1, 2, 3]}]})", "layers[0].fired");
  refused(head + R"([{"tokens": [], "fired": [1]}]})", "layers[0].tokens");
  refused(head + R"([{"tokens": [4], "fired": [1, 2)", "JSON");
  refused(R"({"format": "stoke-firing-2", "fingerprint": "12", "tokens": 4, "layers": []})", "fingerprint");
  refused(R"({"format": "stoke-firing-2", "fingerprint": "0123456789abcdef", "tokens": 0, "layers": []})", "tokens");
}

TEST_F(FiringStatsTest, Check_TellsModelsApart) {
  const FiringStats stats = some();
  const std::vector<FiringShape> shape = {{1, 4}, {2, 2}};
  EXPECT_TRUE(check_firing(stats, "s.json", shape, stats.fingerprint).ok());
  const auto refused = [&](std::vector<FiringShape> layers, uint64_t fingerprint, const char* says) {
    const Status status = check_firing(stats, "s.json", layers, fingerprint);
    EXPECT_EQ(status.code(), Code::kInvalid);
    EXPECT_NE(status.message().find(says), std::string::npos) << status.message();
  };
  refused({{1, 4}}, stats.fingerprint, "2 layers");
  refused({{1, 4}, {1, 4}}, stats.fingerprint, "layer 1 has 2 x 2");
  refused(shape, 1, "00ffee0123456789");
}

}  // namespace
}  // namespace stoke::formats
