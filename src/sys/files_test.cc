#include "sys/files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace stoke::sys {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    // In the build's folder, not in /tmp: that is often a tmpfs, which refuses direct reads.
    std::string pattern = (std::filesystem::current_path() / "build" / "file_test_XXXXXX").string();
    if (!std::filesystem::exists("build")) pattern = testing::TempDir() + "file_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string make(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    EXPECT_TRUE(write_file_atomic(path, text).ok());
    return path;
  }

  std::string folder_;
};

TEST_F(FileTest, Open_SaysWhichFileIsMissing) {
  const Result<File> file = File::open_read(folder_ + "/absent");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), Code::kNotFound);
  EXPECT_EQ(file.status().message(), folder_ + "/absent: cannot open: no such file or directory");
}

TEST_F(FileTest, Open_RefusesFolders) { EXPECT_EQ(File::open_read(folder_).status().code(), Code::kInvalid); }

TEST_F(FileTest, Pread_ReadsRangesAndNamesTheOffsetAtTheEnd) {
  Result<File> file = File::open_read(make("ten", "0123456789"));
  ASSERT_TRUE(file.ok());
  char text[4] = {};
  ASSERT_TRUE(file->pread_full(text, 4, 3).ok());
  EXPECT_EQ(std::string(text, 4), "3456");
  const Status status = file->pread_full(text, 4, 8);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_NE(status.message().find("ten: ends at offset 10, but 4 bytes were to be read from 8"), std::string::npos)
      << status.message();
}

TEST_F(FileTest, WriteAtomic_ReplacesAndLeavesNothingBeside) {
  const std::string path = make("a", "old");
  make("a", "new and longer");
  EXPECT_EQ(read_file(path).value(), "new and longer");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(FileTest, WriteAtomic_FailureKeepsTheOldFile) {
  const Status status = write_file_atomic(folder_ + "/no/such/folder", "x");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), folder_ + "/no/such/folder: cannot open: no such file or directory");
}

TEST_F(FileTest, ReadFile_HasALimit) {
  EXPECT_EQ(read_file(make("long", std::string(100000, 'x')), 1000).status().code(), Code::kInvalid);
}

TEST_F(FileTest, Direct_ReadsTheSameBytesOrSaysWhyNot) {
  std::string text(300001, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 2654435761U >> 13);
  Result<File> file = File::open_direct(make("direct", text));
  ASSERT_TRUE(file.ok());
  if (!file->direct()) {
    EXPECT_FALSE(file->why_not_direct().empty());
    GTEST_SKIP() << file->why_not_direct();
  }
  const size_t alignment = file->alignment();
  const size_t superset = (text.size() + alignment - 1) / alignment * alignment;
  std::unique_ptr<char, decltype(&std::free)> block(static_cast<char*>(std::aligned_alloc(alignment, superset)),
                                                    &std::free);
  ASSERT_TRUE(file->pread_some(block.get(), superset, text.size(), 0).ok());
  EXPECT_EQ(std::string(block.get(), text.size()), text);
  EXPECT_EQ(file->pread_some(block.get(), alignment, 1, superset).code(), Code::kCorrupt);
}

TEST_F(FileTest, FreeSpace_WorksForFoldersYetToBeMade) {
  EXPECT_GT(free_space(folder_).value(), 0U);
  EXPECT_GT(free_space(folder_ + "/x/y/z").value(), 0U);
}

TEST_F(FileTest, Pwrite_AtAnOffsetKeepsTheRest) {
  const std::string path = make("w", "0123456789");
  Result<File> file = File::open_write(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->pwrite_full("ab", 2, 4).ok());
  EXPECT_EQ(file->size().value(), 10U);
  EXPECT_EQ(read_file(path).value(), "0123ab6789");
}

TEST(File, FullDisk_IsNoSpace) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  Result<File> file = File::open_write("/dev/full");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->pwrite_full("x", 1, 0).code(), Code::kNoSpace);
}

}  // namespace
}  // namespace stoke::sys
