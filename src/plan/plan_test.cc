// The split of a budget: worth by worth, never beyond the room, and what a store without rates gets.
#include "plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tensor/half.h"

namespace stoke::plan {
namespace {

constexpr int64_t kRecord = 4608;
constexpr int64_t kSlot = kRecord + 32;

// Layers of 1024 neurons whose rates fall from `first` by halves every `half_life` neurons.
struct Rates {
  std::vector<std::vector<uint16_t>> layers;

  Rates(std::vector<float> first, int64_t half_life, int64_t experts = 1) {
    for (const float f : first) {
      layers.emplace_back();
      for (int64_t e = 0; e < experts; ++e) {
        for (int64_t i = 0; i < 1024; ++i) {
          const float exponent = -static_cast<float>(i) / static_cast<float>(half_life);
          layers.back().push_back(float_to_half(f * std::exp2(exponent)));
        }
      }
    }
  }
  Request request(int64_t experts = 1) const {
    Request r{.room = 10 << 20,
              .kv = 1 << 20,
              .matrices = 6 << 20,
              .matrices_least = 1 << 20,
              .records_least = 64 * kSlot,
              .tables = 8192,
              .record_bytes = kRecord,
              .slot_bytes = kSlot,
              .hot_first = true};
    for (const auto& rates : layers) r.layers.push_back({.experts = experts, .neurons = 1024, .rates = rates});
    return r;
  }
};

void expect_sound(const Request& r, const Plan& p) {
  EXPECT_EQ(p.fixed_bytes + p.hot_bytes + p.cold_bytes, r.room);
  EXPECT_GE(p.cold_bytes - r.kv, std::min(r.records_least, r.room - r.kv - p.fixed_bytes - p.hot_bytes));
  EXPECT_LE(p.fixed_bytes, r.matrices);
  EXPECT_GE(p.fixed_bytes, std::min(r.matrices, r.matrices_least));
  int64_t hot = 0;
  ASSERT_EQ(p.hot_neurons.size(), r.layers.size());
  for (size_t l = 0; l < r.layers.size(); ++l) {
    EXPECT_EQ(p.hot_neurons[l] % 256, 0);
    EXPECT_LE(p.hot_neurons[l], r.layers[l].neurons);
    hot += p.hot_neurons[l] * r.layers[l].experts * r.record_bytes;
  }
  EXPECT_EQ(hot, p.hot_bytes);
  EXPECT_GE(p.cold_bytes, r.records_least + r.kv);  // a full context leaves what makes progress
}

TEST(Plan, RecordsThatFireOftenComeBeforeMatrices) {
  // p >= 0.16 is worth more than a matrix: of 0.95 halved every 256 neurons, the first 658.
  const Rates rates({0.95F}, 256);
  Request r = rates.request();
  r.matrices = 8 << 20;
  const Plan p = make_plan(r);
  expect_sound(r, p);
  EXPECT_LT(p.fixed_bytes, 8 << 20);
  const int64_t records = (10 << 20) - (1 << 20) - p.fixed_bytes;
  EXPECT_NEAR(static_cast<double>(records), 658 * kSlot, 8 * kSlot);
}

TEST(Plan, RareRecordsComeAfterMatrices) {
  const Rates rates({0.1F}, 1024);
  const Plan p = make_plan(rates.request());
  expect_sound(rates.request(), p);
  EXPECT_EQ(p.fixed_bytes, 6 << 20);
}

TEST(Plan, AFastDiskFavoursMatrices) {
  const Rates rates({0.5F}, 256);
  Request r = rates.request();
  r.disk = {.request_s = 0, .bytes_per_s = 1e9};  // every byte costs the same: matrices are used always
  EXPECT_EQ(make_plan(r).fixed_bytes, r.matrices);
}

TEST(Plan, HotAreWholeClustersOfTheLayersThatFireMost) {
  const Rates rates({0.9F, 0.3F, 0.02F}, 256);
  const Request r = rates.request();
  const Plan p = make_plan(r);
  expect_sound(r, p);
  EXPECT_GT(p.hot_neurons[0], 0);
  EXPECT_GE(p.hot_neurons[0], p.hot_neurons[1]);
  EXPECT_EQ(p.hot_neurons[2], 0);
  EXPECT_GT(p.fill_rate, 0);
  // What the fill takes is what fits.
  int64_t wanted = 0;
  for (size_t l = 0; l < 3; ++l) {
    for (int64_t i = p.hot_neurons[l]; i < 1024; ++i) wanted += rates.layers[l][static_cast<size_t>(i)] >= p.fill_rate;
  }
  EXPECT_GE(wanted, std::min<int64_t>(p.fill_records, 1));
  EXPECT_LE(wanted, p.fill_records + 8);  // equal rates
}

TEST(Plan, UnorderedOrUnknownHaveNoHotPart) {
  const Rates rates({0.9F, 0.3F}, 256);
  Request r = rates.request();
  r.hot_first = false;
  Plan p = make_plan(r);
  expect_sound(r, p);
  EXPECT_EQ(p.hot_bytes, 0);
  EXPECT_GT(p.fill_rate, 0);
  for (Layer& layer : r.layers) layer.rates = {};
  p = make_plan(r);
  expect_sound(r, p);
  EXPECT_EQ(p.hot_bytes, 0);
  EXPECT_EQ(p.fill_rate, 0);
  EXPECT_GT(p.fill_records, 0);
  // A quarter of the records, then matrices.
  EXPECT_EQ(p.fixed_bytes, std::min<int64_t>(6 << 20, (10 << 20) - (1 << 20) - 512 * kSlot));
}

TEST(Plan, AnyRoomIsSplitSoundly) {
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    SCOPED_TRACE(i);
    const int64_t experts = random() % 3 == 0 ? 4 : 1;
    const Rates rates({static_cast<float>(random() % 100) / 100, 0.3F}, 64 + random() % 512, experts);
    Request r = rates.request(experts);
    r.kv = random() % (1 << 20);
    const int64_t least = r.kv + r.matrices_least + r.records_least;
    r.room = least + random() % (20 << 20);
    r.disk.request_s = static_cast<double>(random() % 30) * 1e-6;
    expect_sound(r, make_plan(r));
  }
}

TEST(FitDisk, FindsRequestAndRate) {
  std::vector<DiskSample> samples;
  for (const uint64_t bytes : {4096U, 32768U, 262144U}) {
    samples.push_back({bytes, static_cast<double>(bytes) / (20e-6 + static_cast<double>(bytes) / 2e9)});
  }
  const Disk disk = fit_disk(samples);
  EXPECT_NEAR(disk.request_s, 20e-6, 1e-9);
  EXPECT_NEAR(disk.bytes_per_s, 2e9, 1e3);
  EXPECT_EQ(fit_disk({}).request_s, Disk().request_s);
  EXPECT_EQ(fit_disk(std::span(samples).first(1)).bytes_per_s, Disk().bytes_per_s);
  const std::vector<DiskSample> odd = {{4096, 1e6}, {65536, 1e12}};
  EXPECT_EQ(fit_disk(odd).request_s, Disk().request_s);
}

}  // namespace
}  // namespace stoke::plan
