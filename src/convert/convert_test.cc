// Conversion: what a store holds against its source, and what becomes of damage, kills and full disks.
#include "convert/convert.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <random>

#include "convert/convert_test_util.h"
#include "formats/store_verify.h"
#include "kernels/quantize.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace stoke::convert {
namespace {

ConvertOptions options_for(const std::string& model, const std::string& output) {
  return {.model = model, .output = output, .threads = 2, .commit_bytes = 4096};
}

// The value of code `i` of a record's Down, by the definition in docs/FORMAT.md.
float code_value(const NeuronRecord& record, const std::byte* down, int64_t d, uint16_t scale, uint16_t min) {
  const DType type = record.down_type;
  const auto* block =
      reinterpret_cast<const uint8_t*>(down) + static_cast<size_t>(d / kCodeBlock) * code_block_bytes(type);
  const auto i = static_cast<size_t>(d % kCodeBlock);
  const float s = half_to_float(scale);
  if (type == DType::kQ8_0) return s * static_cast<float>(static_cast<int8_t>(block[i]));
  const bool fifth = type == DType::kQ5_0 || type == DType::kQ5_1;
  const uint8_t* nibbles = block + (fifth ? 4 : 0);
  uint32_t code = i < 16 ? nibbles[i] & 15U : nibbles[i - 16] >> 4U;
  if (fifth) code |= static_cast<uint32_t>(block[i / 8] >> (i % 8) & 1U) << 4U;
  switch (type) {
    case DType::kQ4_0:
      return s * (static_cast<float>(code) - 8);
    case DType::kQ5_0:
      return s * (static_cast<float>(code) - 16);
    case DType::kIQ4_NL:
      return s * static_cast<float>(kIQ4Values[code]);
    default:
      return s * static_cast<float>(code) + half_to_float(min);
  }
}

uint16_t half_at(const OpenedStore& store, const std::string& name, int64_t row, int64_t col) {
  const formats::TensorEntry* tensor = store.file.find(name);
  uint16_t half = 0;
  std::memcpy(&half, store.at(tensor->extent.offset) + 2 * (row * tensor->cols() + col), sizeof(half));
  return half;
}

class StoreContents {
 public:
  StoreContents(const OpenedStore& store, const formats::ModelFile& source, int layer, bool moe)
      : store_(store), table_(store.store.tables[static_cast<size_t>(layer)]), moe_(moe) {
    const std::string suffix = moe ? "_exps.weight" : ".weight";
    const std::string prefix = "blk." + std::to_string(layer) + ".ffn_";
    gate_ = read_matrix(source, prefix + "gate" + suffix);
    up_ = read_matrix(source, prefix + "up" + suffix);
    down_ = read_matrix(source, prefix + "down" + suffix);
  }

  void check() const {
    const NeuronRecord& record = table_.record;
    ASSERT_EQ(record.dim, up_.cols);
    for (int64_t i = 0; i < table_.neurons; ++i) {
      const std::byte* bytes = store_.at(table_.offset_of(i));
      ASSERT_EQ(std::memcmp(bytes + record.up_offset, up_.row(i), row_bytes(up_.type, up_.cols)), 0) << "up " << i;
      ASSERT_EQ(std::memcmp(gate_row(i, bytes), gate_.row(i), row_bytes(gate_.type, gate_.cols)), 0) << "gate " << i;
      check_down(i, bytes + record.down_offset);
      for (size_t at = record.down_offset + record.down_bytes; at < record.record_bytes; ++at) {
        ASSERT_EQ(bytes[at], std::byte{0}) << "padding of " << i;
      }
    }
  }

 private:
  const std::byte* gate_row(int64_t i, const std::byte* record) const {
    if (table_.record.layout == RecordLayout::kBundle) return record + table_.record.gate_offset;
    const auto* tensor = store_.file.find(store_tensor_name(formats::StorePart::kGate, table_.layer, moe_));
    return store_.at(tensor->extent.offset) + static_cast<size_t>(i) * row_bytes(tensor->type, tensor->cols());
  }

  float source_down(int64_t i, int64_t d) const {
    const int64_t expert = i / table_.expert_neurons();
    return down_.value(expert * table_.record.dim + d, i % table_.expert_neurons());
  }

  float factor(int64_t i, int64_t d) const {
    const auto* tensor = store_.file.find(store_tensor_name(formats::StorePart::kFactors, table_.layer, moe_));
    const int64_t expert = i / table_.expert_neurons();
    float value = 0;
    std::memcpy(&value, store_.at(tensor->extent.offset) + 4 * (expert * table_.record.dim + d), sizeof(value));
    return value;
  }

  void check_down(int64_t i, const std::byte* down) const {
    const NeuronRecord& record = table_.record;
    if (record.down_encoding == DownEncoding::kRequantized) {
      std::vector<float> column;
      for (int64_t d = 0; d < record.dim; ++d) column.push_back(source_down(i, d) / factor(i, d));
      std::vector<std::byte> wanted(record.down_bytes);
      kernels::quantize_row(record.down_type, column.data(), wanted.data(), record.dim);
      ASSERT_EQ(std::memcmp(down, wanted.data(), wanted.size()), 0) << "down " << i;
      return;
    }
    const std::string scales = store_tensor_name(formats::StorePart::kScales, table_.layer, moe_);
    const std::string mins = store_tensor_name(formats::StorePart::kMins, table_.layer, moe_);
    for (int64_t d = 0; d < record.dim; ++d) {
      const uint16_t scale = half_at(store_, scales, i / kCodeBlock, d);
      const uint16_t min = info(record.down_type).has_min ? half_at(store_, mins, i / kCodeBlock, d) : uint16_t{0};
      ASSERT_EQ(code_value(record, down, d, scale, min), source_down(i, d)) << "down " << i << ", " << d;
    }
  }

  const OpenedStore& store_;
  const RecordTable& table_;
  bool moe_;
  SourceMatrix gate_, up_, down_;
};

struct Case {
  TinyModel model;
  RecordLayout layout = RecordLayout::kSplit;
  std::string down;
};

class ConvertedModel : public ConvertTest, public testing::WithParamInterface<Case> {};

TEST_P(ConvertedModel, HoldsTheSourcesRowsAndDownsColumns) {
  const Case& c = GetParam();
  const std::string model = path("m.gguf");
  write_tiny(c.model, model);
  ConvertOptions options = options_for(model, path("m.stoke"));
  options.layout = c.layout;
  options.down = c.down;
  const auto summary = convert(options);
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  EXPECT_FALSE(std::filesystem::exists(path("m.stoke.part")));
  EXPECT_FALSE(std::filesystem::exists(path("m.stoke.journal")));
  OpenedStore store;
  open_store(path("m.stoke"), &store);
  if (HasFatalFailure()) return;
  const auto source = formats::open_model_file(model);
  for (int layer = 0; layer < 2; ++layer) StoreContents(store, *source, layer, c.model.experts > 0).check();
  for (const char* name : {"token_embd.weight", "blk.1.attn_q.weight", "blk.0.ffn_norm.weight", "output.weight"}) {
    EXPECT_EQ(read_matrix(store.file, name).bytes, read_matrix(*source, name).bytes) << name;
  }
  // The engine's plan finds every part.
  const auto plan = engine::plan_model(store.file, {});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  ASSERT_EQ(plan->tables.size(), 2U);
  const model::SparseFfnWeights& sparse = plan->weights.layers[1].sparse;
  EXPECT_EQ(sparse.table, 1);
  EXPECT_EQ(sparse.neurons, c.model.ffn);
  EXPECT_EQ(sparse.gate.valid(), c.layout == RecordLayout::kSplit && c.model.experts == 0);
  EXPECT_EQ(sparse.gates.valid(), c.layout == RecordLayout::kSplit && c.model.experts > 0);
  EXPECT_EQ(sparse.scales.valid(), c.down == "codes");
  for (const float factor : sparse.factors) {
    int exponent = 0;
    EXPECT_EQ(std::frexp(factor, &exponent), 0.5F);  // a power of two: products with it are exact
  }
  EXPECT_FALSE(plan->weights.layers[1].ffn.up.valid());
}

constexpr RecordLayout kSplit = RecordLayout::kSplit;
constexpr RecordLayout kBundle = RecordLayout::kBundle;

INSTANTIATE_TEST_SUITE_P(
    Cases, ConvertedModel,
    testing::Values(Case{{"relu", "q8_0"}, kSplit, ""}, Case{{"drelu", "q4_0"}, kSplit, ""},
                    Case{{"relu", "q4_0"}, kBundle, "q8_0"}, Case{{"relu", "q4_0"}, kSplit, "codes"},
                    Case{{"relu", "q8_0"}, kBundle, "codes"}, Case{{"relu", "f16"}, kSplit, ""},
                    Case{{"relu", "bf16"}, kBundle, "q5_0"}, Case{{"drelu", "q8_0", 96, 4}, kSplit, ""},
                    Case{{"relu", "q4_0", 32, 3}, kBundle, "codes"}, Case{{"relu", "q4_0", 288, 2}, kSplit, "codes"},
                    Case{{"relu", "q5_1"}, kSplit, "codes"}, Case{{"fatrelu:0.1", "q4_0"}, kSplit, ""},
                    Case{{"drelu", "iq4_nl"}, kBundle, "codes"}, Case{{"relu", "q4_k_m", 512, 0, 256}, kSplit, ""},
                    Case{{"relu", "q6_k", 256, 2, 256}, kBundle, "q4_0"}));

// Folders keep their names, their configuration and each expert in a tensor of its own.
TEST_F(ConvertTest, FoldersBecomeStoresToo) {
  for (const std::string name : {"llama-reglu", "llama-fatrelu", "mistral-drelu", "mixtral-drelu"}) {
    const std::string folder = "tests/data/model/" + name;
    const auto summary = convert(options_for(folder, path(name + ".stoke")));
    ASSERT_TRUE(summary.ok()) << summary.status().message();
    OpenedStore store;
    open_store(path(name + ".stoke"), &store);
    if (HasFatalFailure()) return;
    const auto source = formats::open_model_file(folder);
    EXPECT_EQ(store.file.config_json, source->config_json);
    const auto before = engine::plan_model(*source, {});
    const auto after = engine::plan_model(store.file, {});
    ASSERT_TRUE(before.ok() && after.ok()) << after.status().message();
    EXPECT_EQ(after->config.activation, before->config.activation);
    const bool moe = name == "mixtral-drelu";
    const RecordTable& table = store.store.tables[1];
    EXPECT_EQ(table.experts, moe ? 4 : 1);
    const std::string prefix = "model.layers.1.";
    const std::string up_name = moe ? "block_sparse_moe.experts.3.w3.weight" : "mlp.up_proj.weight";
    const std::string down_name = moe ? "block_sparse_moe.experts.3.w2.weight" : "mlp.down_proj.weight";
    const SourceMatrix up = read_matrix(*source, prefix + up_name);
    const SourceMatrix down = read_matrix(*source, prefix + down_name);
    const std::vector<float>& factors = after->weights.layers[1].sparse.factors;
    const int64_t expert = table.experts - 1;
    std::vector<float> column(static_cast<size_t>(down.cols == 0 ? 0 : table.record.dim));
    for (int64_t i = 0; i < table.expert_neurons(); ++i) {
      const std::byte* record = store.at(table.offset_of(expert * table.expert_neurons() + i));
      ASSERT_EQ(std::memcmp(record + table.record.up_offset, up.row(i), row_bytes(up.type, up.cols)), 0) << i;
      kernels::best().dequantize_row(table.record.down_type, record + table.record.down_offset, column.data(),
                                     table.record.dim);
      for (int64_t d = 0; d < table.record.dim; ++d) {
        const float factor = factors[static_cast<size_t>(expert * table.record.dim + d)];
        ASSERT_EQ(column[static_cast<size_t>(d)] * factor, down.value(d, i)) << i << ", " << d;
      }
    }
  }
}

TEST_F(ConvertTest, RefusesModelsThatAreNotRelu) {
  write_tiny({.activation = "silu"}, path("m.gguf"));
  const auto summary = convert(options_for(path("m.gguf"), path("m.stoke")));
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().code(), Code::kUnsupported);
  EXPECT_NE(summary.status().message().find("relu"), std::string::npos) << summary.status().message();
}

TEST_F(ConvertTest, RefusesWhatIsAStoreAlready) {
  write_tiny({}, path("m.gguf"));
  ASSERT_TRUE(convert(options_for(path("m.gguf"), path("m.stoke"))).ok());
  const auto again = convert(options_for(path("m.stoke"), path("n.stoke")));
  EXPECT_EQ(again.status().code(), Code::kInvalid) << again.status().message();
}

// A changed byte anywhere but in padding between tensors is found.
TEST_F(ConvertTest, FindsDamageAnywhere) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  write_tiny({}, path("m.gguf"));
  ASSERT_TRUE(convert(options_for(path("m.gguf"), path("m.stoke"))).ok());
  OpenedStore store;
  open_store(path("m.stoke"), &store);
  if (HasFatalFailure()) return;
  ASSERT_TRUE(formats::verify_store(store.file, store.store, {}).ok());
  std::mt19937 random(seed);
  std::vector<formats::Extent> places = {{0, 0, store.store.header_bytes}};
  for (const auto& tensor : store.file.tensors) places.push_back(tensor.extent);
  for (const formats::Extent& place : places) {
    const uint64_t at = place.offset + std::uniform_int_distribution<uint64_t>(0, place.bytes - 1)(random);
    std::string bytes = store.bytes;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
    std::ofstream(path("m.stoke"), std::ios::binary) << bytes;
    const Status found = formats::verify_store(store.file, store.store, {});
    EXPECT_EQ(found.code(), Code::kCorrupt) << "byte " << at << ": " << found.message();
  }
}

// Converts in a process of its own that is killed once `bytes` bytes are written; false where it was done before.
bool convert_killed_at(ConvertOptions options, uint64_t bytes) {
  const pid_t child = ::fork();
  if (child == 0) {
    options.progress = [bytes](const ConvertProgress& at) {
      if (at.verifying || at.done >= bytes) ::kill(::getpid(), SIGKILL);
      return true;
    };
    const auto done = convert(options);
    ::_exit(done.ok() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

TEST_F(ConvertTest, GoesOnAfterAKillWithTheSameBytes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  write_tiny({.type = "q4_0", .experts = 3}, path("m.gguf"));
  ASSERT_TRUE(convert(options_for(path("m.gguf"), path("whole.stoke"))).ok());
  const std::string whole = *sys::read_file(path("whole.stoke"));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 8; ++round) {
    const ConvertOptions options = options_for(path("m.gguf"), path("m.stoke"));
    const uint64_t first = random() % whole.size();
    ASSERT_TRUE(convert_killed_at(options, first));
    ASSERT_TRUE(convert_killed_at(options, first + random() % (whole.size() - first)));
    ASSERT_FALSE(std::filesystem::exists(path("m.stoke")));
    const auto summary = convert(options);
    ASSERT_TRUE(summary.ok()) << summary.status().message();
    EXPECT_TRUE(first < whole.size() / 2 || summary->resumed > 0) << first;
    EXPECT_TRUE(*sys::read_file(path("m.stoke")) == whole) << "killed at " << first;
    std::filesystem::remove(path("m.stoke"));
  }
}

TEST_F(ConvertTest, BeginsAnewWhereThePartIsOfOtherWork) {
  write_tiny({}, path("m.gguf"));
  ConvertOptions options = options_for(path("m.gguf"), path("m.stoke"));
  ASSERT_TRUE(convert(options).ok());
  const std::string whole = *sys::read_file(path("m.stoke"));
  options.layout = RecordLayout::kBundle;
  ASSERT_TRUE(convert_killed_at(options, whole.size() / 2));
  options.layout = RecordLayout::kSplit;
  const auto summary = convert(options);
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  EXPECT_EQ(summary->resumed, 0U);
  EXPECT_TRUE(*sys::read_file(path("m.stoke")) == whole);
}

TEST_F(ConvertTest, DamageToAPartIsFoundAndTheNextTryBeginsAnew) {
  write_tiny({}, path("m.gguf"));
  const ConvertOptions options = options_for(path("m.gguf"), path("m.stoke"));
  ASSERT_TRUE(convert_killed_at(options, uint64_t{1} << 40));  // while verifying
  {
    std::fstream part(path("m.stoke.part"), std::ios::binary | std::ios::in | std::ios::out);
    part.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path("m.stoke.part")) / 2));
    part << "damage";
  }
  EXPECT_EQ(convert(options).status().code(), Code::kCorrupt);
  EXPECT_FALSE(std::filesystem::exists(path("m.stoke")));
  EXPECT_TRUE(convert(options).ok());
}

TEST_F(ConvertTest, AFullDiskLeavesNoStoreAndSaysSo) {
  write_tiny({.ffn = 3200}, path("m.gguf"));
  const std::string small = path("small");
  std::filesystem::create_directory(small);
  if (::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=4m") != 0) GTEST_SKIP() << "cannot mount a small disk here";
  ConvertOptions options = options_for(path("m.gguf"), small + "/m.stoke");
  options.progress = [&](const ConvertProgress&) {  // a neighbour takes the room
    std::ofstream(small + "/other", std::ios::binary | std::ios::app) << std::string(size_t{1} << 20, 'x');
    return true;
  };
  const auto filled = convert(options);
  const bool appeared = std::filesystem::exists(small + "/m.stoke");
  const auto refused = convert(options);
  std::filesystem::remove(small + "/other");
  options.progress = {};
  const auto resumed = convert(options);
  ::umount(small.c_str());
  EXPECT_EQ(filled.status().code(), Code::kNoSpace) << filled.status().message();
  EXPECT_NE(filled.status().message().find("make room"), std::string::npos) << filled.status().message();
  EXPECT_FALSE(appeared);
  EXPECT_EQ(refused.status().code(), Code::kNoSpace) << refused.status().message();
  EXPECT_TRUE(resumed.ok()) << resumed.status().message();
}

}  // namespace
}  // namespace stoke::convert
