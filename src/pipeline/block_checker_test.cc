#include "pipeline/block_checker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "sys/checksum.h"

namespace stoke::pipeline {
namespace {

constexpr uint64_t kOffset = 4096;  // of the bytes in their file
constexpr uint64_t kUnit = 70000;
constexpr uint64_t kBlock = 7 * kUnit;
constexpr size_t kBlocks = 40;  // more than there is room for

class BlockCheckerTest : public testing::Test {
 protected:
  BlockCheckerTest() : file_(kBlocks * kBlock) {
    for (size_t i = 0; i < file_.size(); ++i) file_[i] = static_cast<std::byte>(i * 13 + i / 251);
    for (size_t at = 0; at < file_.size(); at += kUnit) sums_.push_back(sys::checksum32(file_.data() + at, kUnit));
    checks_ = sys::CheckedRanges({{kOffset, file_.size(), kUnit, sums_}});
    checker_.check_against(&checks_);
  }
  bool push(size_t block) {
    return checker_.push({.unit = static_cast<int32_t>(block),
                          .data = file_.data() + block * kBlock,
                          .offset = kOffset + block * kBlock,
                          .bytes = kBlock});
  }
  void damage(size_t block, size_t unit) { file_[block * kBlock + unit * kUnit + 5] ^= std::byte{4}; }

  std::vector<std::byte> file_;
  std::vector<uint32_t> sums_;
  sys::CheckedRanges checks_;
  BlockChecker checker_;
};

TEST_F(BlockCheckerTest, NothingKnown_NothingTaken) {
  BlockChecker idle;
  EXPECT_FALSE(idle.push({.unit = 1, .data = file_.data(), .offset = kOffset, .bytes = kBlock}));
  EXPECT_FALSE(idle.help());
  EXPECT_EQ(idle.take(), std::nullopt);
  EXPECT_FALSE(idle.hurry(1));
}

TEST_F(BlockCheckerTest, Pieces_FinishABlockAndNameTheDamage) {
  damage(1, 6);
  ASSERT_TRUE(push(0) && push(1));
  EXPECT_EQ(checker_.take(), std::nullopt);
  int pieces = 0;
  while (checker_.help()) ++pieces;
  EXPECT_GT(pieces, 4) << "others are to have a turn in between";
  auto first = checker_.take();
  auto second = checker_.take();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->unit, 0);
  EXPECT_EQ(first->damaged, std::nullopt);
  EXPECT_EQ(second->unit, 1);
  EXPECT_EQ(second->damaged, kOffset + kBlock + 6 * kUnit);
  EXPECT_EQ(checker_.take(), std::nullopt);
}

TEST_F(BlockCheckerTest, Hurry_FinishesOneAndHurryAllTheRest) {
  for (size_t b = 0; b < 4; ++b) ASSERT_TRUE(push(b));
  EXPECT_TRUE(checker_.hurry(2));
  EXPECT_FALSE(checker_.hurry(9));
  const auto taken = checker_.take();
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->unit, 2);
  EXPECT_FALSE(checker_.hurry(2)) << "it was taken";
  checker_.hurry_all();
  for (const int32_t unit : {0, 1, 3}) {
    const auto next = checker_.take();
    ASSERT_TRUE(next);
    EXPECT_EQ(next->unit, unit);
  }
}

// Threads help while the control thread pushes, hurries and takes: every block comes out once, with its own result.
TEST_F(BlockCheckerTest, ManyThreads_EveryBlockOnce) {
  for (const size_t block : {3, 17, 39}) damage(block, block % 7);
  std::atomic<bool> over{false};
  std::vector<std::thread> helpers;
  for (int i = 0; i < 2; ++i) {
    helpers.emplace_back([&] {
      while (!over.load()) {
        if (!checker_.help()) std::this_thread::yield();
      }
    });
  }
  std::vector<int> seen(kBlocks);
  size_t pushed = 0;
  for (size_t taken = 0; taken < kBlocks;) {
    while (pushed < kBlocks && push(pushed)) ++pushed;
    if (taken % 3 == 0) checker_.hurry(static_cast<int32_t>(taken));
    while (const auto next = checker_.take()) {
      const auto block = static_cast<size_t>(next->unit);
      ++seen[block];
      const bool bad = block == 3 || block == 17 || block == 39;
      EXPECT_EQ(next->damaged.has_value(), bad) << block;
      if (bad) {
        EXPECT_EQ(*next->damaged, kOffset + block * kBlock + block % 7 * kUnit);
      }
      ++taken;
    }
  }
  over = true;
  for (std::thread& helper : helpers) helper.join();
  EXPECT_EQ(seen, std::vector<int>(kBlocks, 1));
}

}  // namespace
}  // namespace stoke::pipeline
