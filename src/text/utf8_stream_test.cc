#include "text/utf8_stream.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace stoke::text {
namespace {

// U+FFFD, as often as the reference (Python's errors="replace") gives it.
std::string replaced(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += "\xef\xbf\xbd";
  return out;
}

TEST(ValidUtf8, KeepsWhatIsValid) {
  std::string text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
  EXPECT_EQ(valid_utf8(text), text);
  EXPECT_EQ(valid_utf8(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(valid_utf8(""), "");
}

TEST(ValidUtf8, ReplacesEachMaximalInvalidRunOnce) {
  EXPECT_EQ(valid_utf8("\xff"), replaced(1));
  EXPECT_EQ(valid_utf8("\x80\x80"), replaced(2));
  EXPECT_EQ(valid_utf8("\xe2\x82"), replaced(1));         // cut
  EXPECT_EQ(valid_utf8("\xe2\x82x"), replaced(1) + "x");  // broken off
  EXPECT_EQ(valid_utf8("\xf0\x9f\x98y"), replaced(1) + "y");
  EXPECT_EQ(valid_utf8("\xc0\xaf"), replaced(2));          // too long a spelling
  EXPECT_EQ(valid_utf8("\xed\xa0\x80"), replaced(3));      // a surrogate
  EXPECT_EQ(valid_utf8("\xf4\x90\x80\x80"), replaced(4));  // beyond U+10FFFF
  EXPECT_EQ(valid_utf8("\xf5z"), replaced(1) + "z");
}

TEST(Utf8Stream, HoldsBackWhatIsNotComplete) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xf0"), "");
  EXPECT_EQ(stream.push("\x9f\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "\xf0\x9f\x98\x80!");
  EXPECT_EQ(stream.push("\xe2"), "");
  EXPECT_EQ(stream.finish(), replaced(1));
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, AnyCutGivesTheSameText) {
  std::mt19937 random(7);
  const std::string_view kParts[] = {"a",    "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                     "\xff", "\xe2\x82", "\xc0",         "\x80"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += kParts[random() % std::size(kParts)];
    Utf8Stream stream;
    std::string streamed;
    for (size_t at = 0; at < text.size();) {
      size_t count = std::min<size_t>(1 + random() % 3, text.size() - at);
      streamed += stream.push(std::string_view(text).substr(at, count));
      at += count;
    }
    streamed += stream.finish();
    ASSERT_EQ(streamed, valid_utf8(text)) << "round " << round;
  }
}

}  // namespace
}  // namespace stoke::text
