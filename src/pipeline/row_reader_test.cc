// Rows in order, out of order and again; over disks that reorder, fail once, fail always and end early.
#include "pipeline/row_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "io/sim_reader.h"

namespace stoke::pipeline {
namespace {

constexpr int64_t kRows = 500;
constexpr size_t kRowBytes = 2308;  // of two sectors, and never at one's start
constexpr uint64_t kFirst = 100;

std::byte value(int64_t row, size_t at) { return static_cast<std::byte>((row * 31 + static_cast<int64_t>(at)) % 251); }

class RowReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("stoke_rows_" + std::to_string(getpid()));
    std::ofstream out(path_, std::ios::binary);
    out << std::string(kFirst, '-');
    for (int64_t row = 0; row < kRows; ++row) {
      for (size_t i = 0; i < kRowBytes; ++i) out.put(static_cast<char>(value(row, i)));
    }
    out.close();
    auto file = sys::File::open_read(path_);
    ASSERT_TRUE(file.ok());
    file_ = std::move(*file);
    place_ = {.name = "embed", .info = {.rows = kRows, .cols = 1, .row_bytes = kRowBytes}};
    // Two pieces, as a split file has them.
    place_.pieces = {{&file_, kFirst, 200}, {&file_, kFirst + 200 * kRowBytes, kRows - 200}};
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Status read(RowReader& reader, int64_t row) {
    std::vector<std::byte> got(kRowBytes);
    STOKE_TRY(reader.read(place_, row, got.data()));
    for (size_t i = 0; i < kRowBytes; ++i) EXPECT_EQ(got[i], value(row, i)) << "row " << row << " byte " << i;
    return ok_status();
  }

  std::string path_;
  sys::File file_;
  MatrixPlace place_;
  sys::ManualClock clock_;
};

TEST_F(RowReaderTest, GivesRowsInOrderOverADiskThatReorders) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    io::SimReader disk({.seed = seed, .slow = 0.1, .torn = 0.2, .again = 0.1}, io::sim_file_data(), clock_);
    IoQueue queue(disk, clock_, 16);  // smaller than what is asked for at once
    RowReader rows(queue);
    std::vector<int32_t> wanted;
    for (int32_t i = 0; i < 300; ++i) wanted.push_back(i % 7 == 0 ? 3 : (i * 37) % static_cast<int32_t>(kRows));
    rows.expect(place_, wanted);
    for (const int32_t row : wanted) ASSERT_TRUE(read(rows, row).ok());
    EXPECT_EQ(disk.counts().reads, 300u) << "no row is read twice";
  }
}

TEST_F(RowReaderTest, GivesWhatWasNotExpected) {
  io::SimReader disk({}, io::sim_file_data(), clock_);
  IoQueue queue(disk, clock_, 64);
  RowReader rows(queue);
  const std::vector<int32_t> wanted = {1, 2, 3, 4};
  rows.expect(place_, wanted);
  ASSERT_TRUE(read(rows, 1).ok());
  ASSERT_TRUE(read(rows, 499).ok());  // what was expected is void now
  ASSERT_TRUE(read(rows, 2).ok());
  rows.expect(place_, std::span(wanted).first(2));
  ASSERT_TRUE(read(rows, 1).ok());
  while (!queue.idle()) queue.wait();
}

TEST_F(RowReaderTest, ReadsOnceMoreAndThenNamesThePlace) {
  io::SimReader sick({.error = 1.0}, io::sim_file_data(), clock_);
  IoQueue queue(sick, clock_, 64);
  RowReader rows(queue);
  const Status status = read(rows, 7);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_NE(status.message().find("embed"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find(path_), std::string::npos) << status.message();
  EXPECT_EQ(sick.counts().reads, 2u);

  io::SimReader unsteady({.seed = 3, .error = 0.2}, io::sim_file_data(), clock_);
  IoQueue second(unsteady, clock_, 64);
  RowReader more(second);
  int good = 0;
  for (int64_t row = 0; row < 100; ++row) good += read(more, row).ok() ? 1 : 0;
  EXPECT_GT(good, 85);  // one in five attempts fails, so one in 25 rows
}

TEST_F(RowReaderTest, SaysThatTheFileEnds) {
  io::SimReader disk({.ends_at = kFirst + 10 * kRowBytes}, io::sim_file_data(), clock_);
  IoQueue queue(disk, clock_, 64);
  RowReader rows(queue);
  ASSERT_TRUE(read(rows, 9).ok());
  EXPECT_FALSE(read(rows, 10).ok());
}

}  // namespace
}  // namespace stoke::pipeline
