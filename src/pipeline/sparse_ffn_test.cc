// The sparse FFN with every record in memory: the bits of plain loops, for one token and for many, however many threads
// there are and however gates are handed out.
#include "pipeline/sparse_ffn.h"

#include <gtest/gtest.h>

#include "pipeline/sparse_test_util.h"

namespace stoke::pipeline {
namespace {

const std::vector<StoreCase> kCases = {
    {.name = "split"},
    {.name = "one_cluster", .neurons = 96},
    {.name = "bundle", .layout = RecordLayout::kBundle},
    {.name = "codes", .encoding = DownEncoding::kCodes, .neurons = 640},
    {.name = "codes_min", .encoding = DownEncoding::kCodes, .down = DType::kQ4_1, .neurons = 640},
    {.name = "drelu", .activation = {model::Activation::kDrelu}},
    {.name = "fatrelu", .activation = {model::Activation::kFatrelu, 0.5f}, .fires = 1.0},
    {.name = "q8_0", .gate = DType::kQ8_0, .up = DType::kQ8_0, .down = DType::kQ8_0, .dim = 96},
    {.name = "floats", .gate = DType::kF16, .up = DType::kF32, .down = DType::kF16},
    {.name = "k_quants", .gate = DType::kQ6_K, .up = DType::kQ4_K, .down = DType::kQ6_K, .dim = 512, .neurons = 300},
    {.name = "wide", .dim = 576, .neurons = 300},
    {.name = "all_fire", .fires = 1.0},
    {.name = "none_fires", .fires = 0.0},
    {.name = "experts", .neurons = 288, .experts = 4, .used = 2},
    {.name = "factors", .factors = true},
    {.name = "experts_factors", .neurons = 288, .experts = 4, .used = 2, .factors = true},
    {.name = "experts_drelu", .neurons = 288, .experts = 3, .used = 2, .activation = {model::Activation::kDrelu}},
};

class SparseFfnTest : public testing::TestWithParam<StoreCase> {};

Floats forward(TestStore& store, const std::vector<NeuronTable>& tables, int threads, const Floats& x,
               SparseOptions options) {
  sys::ThreadPool pool(threads);
  const int64_t tokens = static_cast<int64_t>(x.size()) / store.shape.dim;
  options.max_tokens = std::max<int64_t>(tokens, 1);
  model::Multiplier multiplier(kernels::best(), pool, store.source, {.max_tokens = options.max_tokens});
  SparseFfn ffn({store.config, store.weights, multiplier, tables}, options);
  Floats out(x.size(), NAN);
  ffn.prepare(0);
  const Status status = ffn.forward(0, x.data(), tokens, out.data());
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(store.source.leases, 0);
  return out;
}

void expect_bits(const Floats& got, const Floats& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i]) << what << ", element " << i;
}

TEST_P(SparseFfnTest, AnyBatchAndThreads_GiveTheBitsOfPlainLoops) {
  constexpr uint32_t kSeed = 11;
  TestStore store(GetParam(), kSeed);
  const std::vector<NeuronTable> tables = store.hot_tables();
  for (const int64_t tokens : {1, 2, 4, 7, 19}) {
    const Floats x = store.tokens(tokens);
    Floats want;
    for (int64_t t = 0; t < tokens; ++t) {
      const Floats one = store.expect(0, x.data() + t * store.shape.dim);
      want.insert(want.end(), one.begin(), one.end());
    }
    for (const int threads : {1, 2, 4}) {
      for (const int64_t rows_max : {int64_t{1} << 30, int64_t{112}}) {
        store.source.rows_max = rows_max;
        const std::string what = std::to_string(tokens) + " tokens, " + std::to_string(threads) +
                                 " threads, leases of " + std::to_string(rows_max);
        expect_bits(forward(store, tables, threads, x, {}), want, what);
        expect_bits(forward(store, tables, threads, x, {.whole_layers = true}), want, what + ", whole");
      }
    }
  }
}

// More pieces than there are places for tiles: the control thread computes what does not fit.
TEST(SparseFfn, GatesRowByRow_GiveTheSameBits) {
  TestStore store({.name = "split"}, 12);
  const Floats x = store.tokens(2);
  const Floats want = forward(store, store.hot_tables(), 2, x, {});
  store.source.rows_max = 1;
  expect_bits(forward(store, store.hot_tables(), 2, x, {}), want, "row by row");
}

TEST(SparseFfn, RefusedGates_EndTheLayerWithNothingLeased) {
  TestStore store({.name = "split"}, 13);
  const std::vector<NeuronTable> tables = store.hot_tables();
  for (const int threads : {1, 2}) {
    for (const int64_t tokens : {1, 9}) {
      sys::ThreadPool pool(threads);
      model::Multiplier multiplier(kernels::best(), pool, store.source, {.max_tokens = 9});
      SparseFfn ffn({store.config, store.weights, multiplier, tables}, {.max_tokens = 9});
      const Floats x = store.tokens(tokens);
      Floats out(x.size());
      store.source.rows_max = 64;
      store.source.fail_after = 3;
      EXPECT_EQ(ffn.forward(0, x.data(), tokens, out.data()).code(), Code::kCancelled);
      EXPECT_EQ(store.source.leases, 0);
      store.source.fail_after = -1;
      ASSERT_TRUE(ffn.forward(0, x.data(), tokens, out.data()).ok());
      expect_bits({out.begin(), out.begin() + store.shape.dim}, store.expect(0, x.data()), "afterwards");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, SparseFfnTest, testing::ValuesIn(kCases),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace stoke::pipeline
