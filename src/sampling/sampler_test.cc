// Properties of the sampler over random logits (rapidcheck prints the failing case and its seed), and a few fixed
// cases.
#include "sampling/sampler.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "sampling/exp.h"

namespace stoke::sampling {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Everything off: the plain distribution.
SamplingOptions plain() {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  return options;
}

// 2..200 logits in [-20, 20] on a coarse grid, so that ties happen.
rc::Gen<std::vector<float>> logits_gen() {
  return rc::gen::mapcat(rc::gen::inRange<size_t>(2, 200), [](size_t n) {
    return rc::gen::container<std::vector<float>>(
        n, rc::gen::map(rc::gen::inRange(-80, 80), [](int i) { return static_cast<float>(i) / 4; }));
  });
}

Sampler make(const SamplingOptions& options, size_t vocabulary, int64_t history = 64) {
  return Sampler(options, {.vocabulary = static_cast<int64_t>(vocabulary), .history_max = history});
}

double p_of(const Sampler& sampler, int32_t id) {
  for (const Candidate& c : sampler.candidates()) {
    if (c.id == id) return c.p;
  }
  return 0;
}

double total(const Sampler& sampler) {
  double sum = 0;
  for (const Candidate& c : sampler.candidates()) sum += c.p;
  return sum;
}

TEST(Sampler, Greedy_TakesTheHighestAndTheLowestIdOfEquals) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    options.temperature = 0;
    auto sampler = make(options, logits.size());
    const auto expected = std::max_element(logits.begin(), logits.end()) - logits.begin();
    RC_ASSERT(sampler.sample(logits).value() == expected);
  }));
}

TEST(Sampler, Probabilities_SumToOneWhateverTheChain) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    SamplingOptions options;
    options.top_k = *rc::gen::inRange(0, 50);
    options.top_p = static_cast<float>(*rc::gen::inRange(1, 100)) / 100;
    options.min_p = static_cast<float>(*rc::gen::inRange(0, 100)) / 100;
    options.typical_p = static_cast<float>(*rc::gen::inRange(1, 101)) / 100;
    options.temperature = static_cast<float>(*rc::gen::inRange(1, 300)) / 100;
    auto sampler = make(options, logits.size());
    const int32_t token = sampler.sample(logits).value();
    RC_ASSERT(std::fabs(total(sampler) - 1) < 1e-12);
    RC_ASSERT(p_of(sampler, token) > 0);
  }));
}

TEST(Sampler, TopK_KeepsTheKBest) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    options.top_k = *rc::gen::inRange(1, 300);
    auto sampler = make(options, logits.size());
    RC_ASSERT(sampler.sample(logits).ok());
    const auto k = std::min(logits.size(), static_cast<size_t>(options.top_k));
    RC_ASSERT(sampler.candidates().size() == k);
    std::vector<float> expected(logits);
    std::sort(expected.rbegin(), expected.rend());
    expected.resize(k);
    std::vector<float> kept;
    for (const Candidate& c : sampler.candidates()) kept.push_back(c.logit);
    std::sort(kept.rbegin(), kept.rend());
    RC_ASSERT(kept == expected);
  }));
}

TEST(Sampler, TopP_KeepsTheFewestThatReachTheSum) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    auto full = make(options, logits.size());
    RC_ASSERT(full.sample(logits).ok());
    options.top_p = static_cast<float>(*rc::gen::inRange(1, 100)) / 100;
    auto sampler = make(options, logits.size());
    RC_ASSERT(sampler.sample(logits).ok());
    double sum = 0;
    double smallest = 1;
    for (const Candidate& c : sampler.candidates()) {
      sum += p_of(full, c.id);
      smallest = std::min(smallest, p_of(full, c.id));
    }
    RC_ASSERT(sum >= static_cast<double>(options.top_p) - 1e-9);
    RC_ASSERT(sum - smallest < static_cast<double>(options.top_p) + 1e-9);
  }));
}

TEST(Sampler, MinP_KeepsExactlyTheRelativelyProbable) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    auto full = make(options, logits.size());
    RC_ASSERT(full.sample(logits).ok());
    options.min_p = static_cast<float>(*rc::gen::inRange(1, 100)) / 100;
    auto sampler = make(options, logits.size());
    RC_ASSERT(sampler.sample(logits).ok());
    double peak = 0;
    for (const Candidate& c : full.candidates()) peak = std::max(peak, c.p);
    for (const Candidate& c : full.candidates()) {
      RC_ASSERT((p_of(sampler, c.id) > 0) == (c.p >= static_cast<double>(options.min_p) * peak));
    }
  }));
}

TEST(Sampler, Typical_KeepsTheSumAndTheNearestToEntropy) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    auto full = make(options, logits.size());
    RC_ASSERT(full.sample(logits).ok());
    double entropy = 0;
    for (const Candidate& c : full.candidates()) entropy -= c.p > 0 ? c.p * std::log(c.p) : 0;
    options.typical_p = static_cast<float>(*rc::gen::inRange(1, 100)) / 100;
    auto sampler = make(options, logits.size());
    RC_ASSERT(sampler.sample(logits).ok());
    double sum = 0;
    double farthest = 0;
    double nearest_dropped = 1e9;
    for (const Candidate& c : full.candidates()) {
      const double distance = std::fabs(-std::log(c.p) - entropy);
      const bool kept = std::any_of(sampler.candidates().begin(), sampler.candidates().end(),
                                    [&](const Candidate& k) { return k.id == c.id; });
      sum += kept ? c.p : 0;
      if (kept) farthest = std::max(farthest, distance);
      if (!kept) nearest_dropped = std::min(nearest_dropped, distance);
    }
    RC_ASSERT(sum >= static_cast<double>(options.typical_p) - 1e-9);
    RC_ASSERT(farthest <= nearest_dropped + 1e-9);
  }));
}

TEST(Sampler, LowerTemperature_NeverLessProbableTop) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    auto options = plain();
    auto warm = make(options, logits.size());
    options.temperature = 0.5F;
    auto cool = make(options, logits.size());
    RC_ASSERT(warm.sample(logits).ok());
    RC_ASSERT(cool.sample(logits).ok());
    const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    RC_ASSERT(p_of(cool, best) >= p_of(warm, best) - 1e-12);
  }));
}

TEST(Sampler, SameSeed_SameTokens) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    SamplingOptions options;
    options.seed = *rc::gen::arbitrary<uint64_t>();
    options.repeat_penalty = 1.2F;
    options.dry.multiplier = 0.8F;
    auto a = make(options, logits.size());
    auto b = make(options, logits.size());
    for (int i = 0; i < 20; ++i) {
      const int32_t token = a.sample(logits).value();
      RC_ASSERT(b.sample(logits).value() == token);
      a.accept(token);
      b.accept(token);
    }
  }));
}

TEST(Sampler, MinusInfinity_IsNeverChosen) {
  EXPECT_TRUE(rc::check([] {
    auto logits = *logits_gen();
    std::set<size_t> forbidden;
    for (size_t i = 1; i < logits.size(); ++i) {
      if (*rc::gen::inRange(0, 2) == 0) forbidden.insert(i);
    }
    for (const size_t i : forbidden) logits[i] = -kInf;
    SamplingOptions options;
    options.temperature = *rc::gen::element(0.0F, 0.7F, 5.0F);
    options.top_k = *rc::gen::element(0, 5);
    options.top_p = *rc::gen::element(0.9F, 1.0F);
    auto sampler = make(options, logits.size());
    for (int i = 0; i < 10; ++i) {
      RC_ASSERT(!forbidden.contains(static_cast<size_t>(sampler.sample(logits).value())));
    }
  }));
}

TEST(Sampler, Penalties_NeverRaiseWhatTheyHit) {
  EXPECT_TRUE(rc::check([] {
    const auto logits = *logits_gen();
    const auto n = static_cast<int32_t>(logits.size());
    const auto history = *rc::gen::container<std::vector<int32_t>>(rc::gen::inRange(0, n));
    auto options = plain();
    auto free = make(options, logits.size());
    options.repeat_penalty = 1.0F + static_cast<float>(*rc::gen::inRange(0, 10)) / 10;
    options.frequency_penalty = static_cast<float>(*rc::gen::inRange(0, 10)) / 10;
    options.presence_penalty = static_cast<float>(*rc::gen::inRange(0, 10)) / 10;
    auto penalised = make(options, logits.size());
    for (const int32_t token : history) penalised.accept(token);
    RC_ASSERT(free.sample(logits).ok());
    RC_ASSERT(penalised.sample(logits).ok());
    const std::set<int32_t> hit(history.begin(), history.end());
    const auto logit_of = [](const Sampler& s, int32_t id) {
      return std::find_if(s.candidates().begin(), s.candidates().end(), [&](const Candidate& c) { return c.id == id; })
          ->logit;
    };
    for (int32_t id = 0; id < n; ++id) {
      const float before = logit_of(free, id);
      const float after = logit_of(penalised, id);
      RC_ASSERT((hit.contains(id) ? after <= before : after == before));
    }
  }));
}

TEST(Sampler, Dry_AgreesWithTheNaiveSearch) {
  EXPECT_TRUE(rc::check([] {
    const auto history = *rc::gen::container<std::vector<int32_t>>(rc::gen::inRange(0, 4));
    auto options = plain();
    options.dry.multiplier = 1;
    options.dry.base = 2;
    options.dry.breakers = {3};
    auto sampler = make(options, 4);
    const std::vector<int32_t> tail(history.end() - static_cast<std::ptrdiff_t>(std::min<size_t>(64, history.size())),
                                    history.end());
    for (const int32_t token : history) sampler.accept(token);
    std::vector<float> expected(4, 0.0F);
    for (size_t i = 0; i + 1 < tail.size(); ++i) {  // a match that ends at i, before the end
      size_t length = 0;
      while (length <= i && tail[i - length] == tail[tail.size() - 1 - length] && tail[i - length] != 3) ++length;
      if (length < 2 || tail[i + 1] == 3) continue;
      float& loss = expected[static_cast<size_t>(tail[i + 1])];
      loss = std::min(loss, -std::min(1e30F, std::pow(2.0F, static_cast<float>(length) - 2)));
    }
    RC_ASSERT(sampler.sample(std::vector<float>(4, 0.0F)).ok());
    for (const Candidate& c : sampler.candidates()) {
      const float want = expected[static_cast<size_t>(c.id)];
      RC_ASSERT(std::fabs(c.logit - want) <= 1e-5F * std::fabs(want));
    }
  }));
}

TEST(Sampler, NotANumber_IsAnError) {
  for (const float bad : {std::nanf(""), kInf}) {
    for (const float temperature : {0.0F, 1.0F}) {
      auto options = plain();
      options.temperature = temperature;
      auto sampler = make(options, 40);
      std::vector<float> logits(40, 0.0F);
      logits[37] = bad;
      EXPECT_EQ(sampler.sample(logits).status().code(), Code::kInvalid);
    }
  }
  auto sampler = make(plain(), 3);
  EXPECT_FALSE(sampler.sample(std::vector<float>(3, -kInf)).ok());
}

TEST(Sampler, Bias_ForbidsAndForces) {
  auto options = plain();
  options.temperature = 0;
  options.logit_bias = {{2, -kInf}, {0, 5.0F}};
  auto sampler = make(options, 3);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 2, 9}).value(), 0);
}

TEST(Sampler, Draws_FollowTheDistribution) {
  auto sampler = make(plain(), 3);
  const std::vector<float> logits{std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  std::vector<int> counts(3);
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.sample(logits).value())];
  // Five standard deviations of a binomial: 5 * sqrt(0.25 / 100000) = 0.008.
  EXPECT_NEAR(counts[0] / double{kDraws}, 0.5, 0.008);
  EXPECT_NEAR(counts[1] / double{kDraws}, 0.3, 0.008);
}

// The numbers themselves are the contract: a change would change what a seed means.
TEST(Random, IsTheDocumentedGenerator) {
  Random random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317U);
  EXPECT_EQ(random.next(), 3203168211198807973U);
  Random unit(1);
  for (int i = 0; i < 1000; ++i) {
    const double u = unit.uniform();
    EXPECT_TRUE(u >= 0 && u < 1);
  }
}

TEST(Exp, AgreesWithTheLibrary) {
  EXPECT_TRUE(rc::check([] {
    const double x = static_cast<double>(*rc::gen::inRange(-690000, 690000)) / 1000;
    RC_ASSERT(std::fabs(exact_exp(x) / std::exp(x) - 1) < 1e-13);
  }));
}

TEST(Options, NonsenseIsNamed) {
  auto options = plain();
  options.top_p = 1.5F;
  EXPECT_NE(check_options(options, 10).message().find("top-p"), std::string::npos);
  options = plain();
  options.logit_bias = {{10, 0.0F}};
  EXPECT_FALSE(check_options(options, 10).ok());
  EXPECT_TRUE(check_options(SamplingOptions(), 10).ok());
}

}  // namespace
}  // namespace stoke::sampling
