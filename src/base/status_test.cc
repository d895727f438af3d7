#include "base/status.h"

#include <gtest/gtest.h>

namespace stoke {
namespace {

TEST(Status, MessageIsOneLineThatDrivesNoTerminal) {
  const Status status(Code::kNotFound, std::string("a\nb\x1b[31m\x7f") + '\0' + "c\xc3\xa9: fetch it again");
  EXPECT_EQ(status.message(), "a\\x0ab\\x1b[31m\\x7f\\x00c\xc3\xa9: fetch it again");
  EXPECT_EQ(status.with("d\te").message(), "d\\x09e: " + status.message());
}

TEST(Status, FailurePassesThroughResult) {
  const Result<int> result = Status(Code::kIo, "disk");
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), Code::kIo);
  EXPECT_EQ(result.status().message(), "disk");
}

}  // namespace
}  // namespace stoke
