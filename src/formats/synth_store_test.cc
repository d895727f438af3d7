// Synthetic neuron stores: whole by their own checksums, with the gates and ups of the GGUF file of the same options.
#include "formats/synth_store.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "formats/model_file.h"
#include "formats/neuron_store.h"
#include "formats/store_verify.h"

namespace stoke::formats {
namespace {

class SynthStore : public ::testing::TestWithParam<int64_t> {  // experts
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("stoke_synth_store_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  SynthOptions options(const char* name) const {
    SynthShape shape = free_shape("llama").value();
    shape.layers = 2;
    shape.dim = 256;
    shape.ffn = 288;
    shape.heads = 4;
    shape.vocab = 300;
    shape.experts = GetParam();
    shape.experts_used = shape.experts > 0 ? 2 : 0;
    shape.activation = shape.experts > 0 ? "drelu" : "relu";
    return {.shape = shape, .output = folder_ / name};
  }
  static std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path folder_;
};

TEST_P(SynthStore, Write_MakesAWholeStoreWithTheGgufsRows) {
  ASSERT_TRUE(write_synth(options("m.gguf")).ok());
  const Result<SynthSummary> made = write_synth(options("m.stoke"));
  ASSERT_TRUE(made.ok()) << made.status().message();
  ModelFile model = open_model_file(folder_ / "m.gguf").value();
  ModelFile written = open_model_file(folder_ / "m.stoke").value();
  const Result<NeuronStore> store = read_neuron_store(written);
  ASSERT_TRUE(store.ok()) << store.status().message();
  const Status whole = verify_store(written, *store, [](uint64_t, uint64_t) { return true; });
  EXPECT_TRUE(whole.ok()) << whole.message();

  const std::string from = bytes_of(folder_ / "m.gguf");
  const std::string to = bytes_of(folder_ / "m.stoke");
  const bool experts = GetParam() > 0;
  ASSERT_EQ(store->tables.size(), 2U);
  for (const RecordTable& table : store->tables) {
    const std::string prefix = "blk." + std::to_string(table.layer);
    const Extent gate = model.find(prefix + (experts ? ".ffn_gate_exps.weight" : ".ffn_gate.weight"))->extent;
    const Extent kept = written.find(store_tensor_name(StorePart::kGate, table.layer, experts))->extent;
    EXPECT_EQ(from.substr(gate.offset, gate.bytes), to.substr(kept.offset, kept.bytes));
    const Extent up = model.find(prefix + (experts ? ".ffn_up_exps.weight" : ".ffn_up.weight"))->extent;
    const size_t row = row_bytes(DType::kQ4_0, 256);
    ASSERT_EQ(table.neurons, 288 * std::max<int64_t>(1, GetParam()));
    for (int64_t i = 0; i < table.neurons; ++i) {
      const char* record = to.data() + table.offset_of(i);
      const char* source = from.data() + up.offset + static_cast<size_t>(i) * row;
      ASSERT_EQ(std::memcmp(record + table.record.up_offset, source, row), 0) << i;
      const std::string zeros(2 * row_bytes(DType::kQ4_0, 32), '\0');  // the stream's constant and slow dimensions
      ASSERT_EQ(std::memcmp(record + table.record.down_offset, zeros.data(), zeros.size()), 0) << i;
    }
  }
}

TEST_P(SynthStore, Write_RepeatsItselfAndLeavesNothingWhenStopped) {
  ASSERT_TRUE(write_synth(options("a.stoke")).ok());
  ASSERT_TRUE(write_synth(options("b.stoke")).ok());
  EXPECT_TRUE(bytes_of(folder_ / "a.stoke") == bytes_of(folder_ / "b.stoke"));
  SynthOptions stopped = options("c.stoke");
  stopped.progress = [](uint64_t done, uint64_t total) { return done < total / 2; };
  EXPECT_EQ(write_synth(stopped).status().code(), Code::kCancelled);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
}

TEST_P(SynthStore, Write_RefusesModelsWithoutARelu) {
  SynthOptions silu = options("s.stoke");
  silu.shape.activation.clear();
  const Result<SynthSummary> made = write_synth(silu);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), Code::kInvalid);
  EXPECT_NE(made.status().message().find("--ffn-act"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Experts, SynthStore, ::testing::Values(0, 4));

}  // namespace
}  // namespace stoke::formats
