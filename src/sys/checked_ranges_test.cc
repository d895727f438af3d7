#include "sys/checked_ranges.h"

#include <gtest/gtest.h>

#include "sys/checksum.h"

namespace stoke::sys {
namespace {

// Two ranges of a file of 1000 bytes: [100, 350) in units of 100, [400, 500) in units of 60.
class CheckedRangesTest : public testing::Test {
 protected:
  CheckedRangesTest() : file_(1000) {
    for (size_t i = 0; i < file_.size(); ++i) file_[i] = static_cast<std::byte>(i * 7 + i / 256);
    add(100, 250, 100, &first_);
    add(400, 100, 60, &second_);
    ranges_ = CheckedRanges({{400, 100, 60, second_}, {100, 250, 100, first_}});
  }
  void add(size_t offset, size_t bytes, size_t unit, std::vector<uint32_t>* out) {
    for (size_t at = 0; at < bytes; at += unit) {
      out->push_back(checksum32(file_.data() + offset + at, std::min(unit, bytes - at)));
    }
  }
  std::optional<uint64_t> look(uint64_t offset, uint64_t bytes) const {
    return ranges_.first_damaged(file_.data() + offset, offset, bytes);
  }

  std::vector<std::byte> file_;
  std::vector<uint32_t> first_, second_;
  CheckedRanges ranges_;
};

TEST_F(CheckedRangesTest, WholeBytes_AreWell) {
  EXPECT_EQ(look(100, 250), std::nullopt);
  EXPECT_EQ(look(130, 170), std::nullopt);
  EXPECT_EQ(look(400, 100), std::nullopt);
  EXPECT_EQ(look(0, 50), std::nullopt);
}

TEST_F(CheckedRangesTest, DamagedUnit_IsFoundWhereItLiesWhole) {
  file_[349] ^= std::byte{1};
  EXPECT_EQ(look(100, 250), 300u);
  EXPECT_EQ(look(299, 51), 300u);
  EXPECT_EQ(look(300, 50), 300u);
  EXPECT_EQ(look(301, 49), std::nullopt);
  EXPECT_EQ(look(100, 249), std::nullopt);
  file_[150] ^= std::byte{1};
  EXPECT_EQ(look(100, 250), 100u);
}

TEST_F(CheckedRangesTest, UnitOf_GivesTheUnitThatHoldsAByte) {
  EXPECT_EQ(ranges_.unit_of(349).offset, 300u);
  EXPECT_EQ(ranges_.unit_of(349).bytes, 50u);
  EXPECT_EQ(ranges_.unit_of(460).offset, 460u);
  EXPECT_EQ(ranges_.unit_of(460).bytes, 40u);
  EXPECT_EQ(ranges_.unit_of(350).bytes, 0u);
  EXPECT_EQ(ranges_.unit_of(99).bytes, 0u);
}

}  // namespace
}  // namespace stoke::sys
