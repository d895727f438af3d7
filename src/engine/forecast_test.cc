// The forecast's arithmetic: the slower of reading and computing, and two figures where a token chooses its weights.
#include "engine/forecast.h"

#include <gtest/gtest.h>

namespace stoke::engine {
namespace {

constexpr uint64_t kGb = 1000000000;
const ReadRates kMeasured{
    .large_bytes_per_s = 2e9, .small_bytes_per_s = 0.5e9, .dram_bytes_per_s = 20e9, .source = "stoke profile"};

TEST(Forecast, DenseIsBoundByWhatItReads) {
  const Forecast f = forecast({.dense = 4 * kGb, .streamed = 2 * kGb}, kMeasured);
  EXPECT_DOUBLE_EQ(f.tokens_per_s, 1);
  EXPECT_DOUBLE_EQ(f.tokens_per_s_best, 1);
  EXPECT_EQ(f.bytes_per_token, 2 * static_cast<int64_t>(kGb));
  EXPECT_EQ(f.text, "at most about 1 tok/s (2 GB/s from disk, by stoke profile)");
}

TEST(Forecast, LittleToReadIsBoundByMemory) {
  const Forecast f = forecast({.dense = 4 * kGb, .streamed = kGb / 10}, kMeasured);
  EXPECT_DOUBLE_EQ(f.tokens_per_s, 5);
  EXPECT_NE(f.text.find("20 GB/s from memory"), std::string::npos) << f.text;
}

TEST(Forecast, ExpertsGiveARangeWithItsAssumption) {
  const Forecast f = forecast({.dense = kGb, .chosen = 2 * kGb, .chosen_here = 0.5}, kMeasured);
  EXPECT_DOUBLE_EQ(f.tokens_per_s, 2);
  EXPECT_NEAR(f.tokens_per_s_best, 20.0 / 3, 1e-9);
  EXPECT_EQ(f.bytes_per_token, static_cast<int64_t>(kGb));
  EXPECT_NE(f.text.find("2 tok/s if all experts are chosen equally often, 6.7 if"), std::string::npos) << f.text;
}

TEST(Forecast, RecordsComeAtTheRateOfSmallReads) {
  const Forecast f =
      forecast({.dense = kGb, .streamed = kGb, .chosen = kGb, .chosen_here = 0.5, .record_bytes = 4608}, kMeasured);
  EXPECT_DOUBLE_EQ(f.tokens_per_s, 1 / 1.5);
  EXPECT_DOUBLE_EQ(f.tokens_per_s_best, 2);
  EXPECT_NE(f.text.find("15 % of the neurons fire"), std::string::npos) << f.text;
}

TEST(Forecast, UnknownRatesSayNothing) {
  const Forecast none = forecast({.dense = kGb, .streamed = kGb}, ReadRates());
  EXPECT_EQ(none.tokens_per_s, 0);
  EXPECT_EQ(none.text, "");
  // Without the memory's rate there is no bound on a token that finds everything.
  const Forecast open = forecast({.dense = kGb, .chosen = kGb, .chosen_here = 0.5}, {.large_bytes_per_s = 1e9});
  EXPECT_DOUBLE_EQ(open.tokens_per_s, 2);
  EXPECT_EQ(open.tokens_per_s_best, 0);
}

TEST(TightAdvice, OnlyNearTheLeast) {
  const TokenWork work{.dense = 4 * kGb, .streamed = 3 * kGb};
  Tightness tight{.budget = int64_t{1100} << 20,
                  .least = int64_t{1} << 30,
                  .context = 512,
                  .weights = int64_t{4} << 30,
                  .full = int64_t{5} << 30,
                  .batch = 16};
  const std::string advice = tight_advice(tight, work);
  EXPECT_NE(advice.find("1.00 GiB for a context of 512"), std::string::npos) << advice;
  EXPECT_NE(advice.find("16 tokens a pass"), std::string::npos) << advice;
  EXPECT_NE(advice.find("with 5.00 GiB nothing"), std::string::npos) << advice;
  tight.budget = int64_t{2} << 30;
  EXPECT_EQ(tight_advice(tight, work), "");
}

}  // namespace
}  // namespace stoke::engine
