// Stores whose neurons are ordered by statistics: the same records as without, in the order of their counts; and which
// statistics are refused.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "convert/convert_test_util.h"
#include "convert/neuron_order.h"
#include "engine/gate_mark.h"
#include "formats/firing_stats.h"
#include "formats/store_verify.h"
#include "tensor/half.h"

namespace stoke::convert {
namespace {

using formats::FiringStats;
using formats::StorePart;

FiringStats stats_for(const std::string& model, uint32_t seed) {
  const auto file = formats::open_model_file(model);
  const auto plan = engine::plan_model(*file, {});
  const auto mark = engine::mark_gates(*file, *plan);
  EXPECT_TRUE(mark.ok()) << mark.status().message();
  FiringStats stats{.model = "m", .fingerprint = mark->fingerprint, .tokens = 1000};
  std::mt19937 random(seed);
  for (const formats::FiringShape& layer : mark->layers) {
    formats::LayerFiring counts;
    for (int64_t e = 0; e < layer.experts; ++e) {
      counts.tokens.push_back(1000);
      for (int64_t i = 0; i < layer.neurons; ++i) counts.fired.push_back(random() % 200);  // with equal ones
    }
    stats.layers.push_back(std::move(counts));
  }
  return stats;
}

struct OrderedCase {
  TinyModel model;
  RecordLayout layout = RecordLayout::kSplit;
  std::string down;
};

class OrderedStore : public ConvertTest, public testing::WithParamInterface<OrderedCase> {
 protected:
  void make() {
    write_tiny(GetParam().model, path("m.gguf"));
    stats_ = stats_for(path("m.gguf"), 3);
    ASSERT_TRUE(write_firing(stats_, path("s.json")).ok());
    ASSERT_TRUE(convert(options("plain.stoke", "")).ok());
    const auto made = convert(options("hot.stoke", path("s.json")));
    ASSERT_TRUE(made.ok()) << made.status().message();
  }
  ConvertOptions options(const std::string& name, const std::string& stats) const {
    return {.model = path("m.gguf"),
            .output = path(name),
            .layout = GetParam().layout,
            .down = GetParam().down,
            .stats = stats,
            .threads = 2,
            .commit_bytes = 4096};
  }
  FiringStats stats_;
};

// Row `row` of a layer's tensor, where it has one.
std::string row_of(const OpenedStore& store, StorePart part, int layer, bool moe, int64_t row) {
  const formats::TensorEntry* tensor = store.file.find(store_tensor_name(part, layer, moe));
  if (tensor == nullptr) return "";
  const uint64_t bytes = row_bytes(tensor->type, tensor->cols());
  return store.bytes.substr(tensor->extent.offset + static_cast<uint64_t>(row) * bytes, bytes);
}

TEST_P(OrderedStore, HoldsTheSameRecordsInTheOrderOfTheirCounts) {
  make();
  if (HasFatalFailure()) return;
  OpenedStore plain, hot;
  open_store(path("plain.stoke"), &plain);
  open_store(path("hot.stoke"), &hot);
  EXPECT_FALSE(plain.store.hot_first);
  EXPECT_EQ(plain.store.firing_tokens, 0);
  EXPECT_TRUE(hot.store.hot_first);
  EXPECT_EQ(hot.store.firing_tokens, 1000);
  const auto file = formats::DiskFiles().open(path("hot.stoke"));
  const auto rates = formats::load_store_firing(**file, hot.store);
  ASSERT_TRUE(rates.ok()) << rates.status().message();
  const bool moe = GetParam().model.experts > 0;
  const int64_t block = GetParam().down == "codes" ? 32 : 1;
  for (int layer = 0; layer < 2; ++layer) {
    const RecordTable& table = hot.store.tables[static_cast<size_t>(layer)];
    const int64_t n = table.expert_neurons();
    for (int64_t e = 0; e < table.experts; ++e) {
      const auto fired = std::span(stats_.layers[static_cast<size_t>(layer)].fired)
                             .subspan(static_cast<size_t>(e * n), static_cast<size_t>(n));
      const std::vector<int32_t> order = hot_first_order(fired, block);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t from = e * n + order[static_cast<size_t>(i)];
        const int64_t to = e * n + i;
        ASSERT_EQ(std::memcmp(hot.at(table.offset_of(to)), plain.at(table.offset_of(from)), table.record.record_bytes),
                  0)
            << i;
        ASSERT_EQ(row_of(hot, StorePart::kGate, layer, moe, to), row_of(plain, StorePart::kGate, layer, moe, from));
        ASSERT_EQ(row_of(hot, StorePart::kScales, layer, moe, to / 32),
                  row_of(plain, StorePart::kScales, layer, moe, from / 32));
        const uint16_t rate = (*rates)[static_cast<size_t>(table.first_checksum + to)];
        ASSERT_EQ(rate, float_to_half(static_cast<float>(fired[static_cast<size_t>(order[static_cast<size_t>(i)])]) /
                                      1000.0F));
        if (block == 1 && i > 0) {
          ASSERT_LE(rate, (*rates)[static_cast<size_t>(table.first_checksum + to - 1)]);
        }
      }
    }
    EXPECT_EQ(row_of(hot, StorePart::kFactors, layer, moe, 0), row_of(plain, StorePart::kFactors, layer, moe, 0));
  }
}

TEST_P(OrderedStore, StoppedAndGoneOnWithGivesTheSameBytes) {
  make();
  if (HasFatalFailure()) return;
  const std::string whole = *sys::read_file(path("hot.stoke"));
  for (const double share : {0.3, 0.6, 0.9}) {
    ConvertOptions stopped = options("again.stoke", path("s.json"));
    stopped.progress = [&](const ConvertProgress& at) {
      return static_cast<double>(at.done) < share * static_cast<double>(at.total);
    };
    EXPECT_EQ(convert(stopped).status().code(), Code::kCancelled);
  }
  const auto done = convert(options("again.stoke", path("s.json")));
  ASSERT_TRUE(done.ok()) << done.status().message();
  EXPECT_GT(done->resumed, 0U);
  EXPECT_TRUE(*sys::read_file(path("again.stoke")) == whole);
}

INSTANTIATE_TEST_SUITE_P(Cases, OrderedStore,
                         testing::Values(OrderedCase{{"relu", "q8_0"}, RecordLayout::kSplit, ""},
                                         OrderedCase{{"relu", "q4_0"}, RecordLayout::kBundle, "q8_0"},
                                         OrderedCase{{"relu", "q4_0", 2112}, RecordLayout::kSplit, ""},
                                         OrderedCase{{"drelu", "q8_0", 96, 3}, RecordLayout::kSplit, ""},
                                         OrderedCase{{"relu", "q4_0", 288, 2}, RecordLayout::kSplit, "codes"}));

TEST_F(ConvertTest, Stats_OtherCountsAreOtherWork) {
  write_tiny({}, path("m.gguf"));
  ASSERT_TRUE(write_firing(stats_for(path("m.gguf"), 1), path("a.json")).ok());
  ASSERT_TRUE(write_firing(stats_for(path("m.gguf"), 2), path("b.json")).ok());
  ConvertOptions options{.model = path("m.gguf"), .output = path("m.stoke"), .stats = path("a.json")};
  options.commit_bytes = 4096;
  options.progress = [](const ConvertProgress& at) { return at.done < at.total / 2; };
  EXPECT_EQ(convert(options).status().code(), Code::kCancelled);
  options.progress = nullptr;
  options.stats = path("b.json");
  const auto made = convert(options);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ(made->resumed, 0U);
}

TEST_F(ConvertTest, Stats_OfAnotherModelAreRefused) {
  write_tiny({}, path("m.gguf"));
  FiringStats stats = stats_for(path("m.gguf"), 1);
  stats.fingerprint ^= 1;
  ASSERT_TRUE(write_firing(stats, path("s.json")).ok());
  const ConvertOptions options{.model = path("m.gguf"), .output = path("m.stoke"), .stats = path("s.json")};
  auto made = convert(options);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), Code::kInvalid);
  EXPECT_NE(made.status().message().find("fingerprint"), std::string::npos) << made.status().message();
  EXPECT_FALSE(std::filesystem::exists(path("m.stoke.part")));
  ConvertOptions absent = options;
  absent.stats = path("absent.json");
  EXPECT_EQ(convert(absent).status().code(), Code::kNotFound);
}

TEST(NeuronOrder, KeepsTheOrderOfEqualsAndBlocksTogether) {
  const std::vector<uint32_t> fired = {1, 5, 3, 5, 0};
  EXPECT_EQ(hot_first_order(fired, 1), (std::vector<int32_t>{1, 3, 2, 0, 4}));
  EXPECT_EQ(hot_first_order(fired, 2), (std::vector<int32_t>{2, 3, 0, 1, 4}));
}

}  // namespace
}  // namespace stoke::convert
