// open_model_file on real paths: dispatch, and errors that say what the path is instead.
#include "formats/model_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace stoke::formats {
namespace {

class OpenModelFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("stoke_model_file_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& bytes) {
    std::string path = folder_ / name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  static void expect_says(const std::string& path, Code code, const std::string& wanted) {
    Result<ModelFile> model = open_model_file(path);
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.status().code(), code) << model.status().message();
    EXPECT_NE(model.status().message().find(wanted), std::string::npos) << model.status().message();
    EXPECT_NE(model.status().message().find(path), std::string::npos) << model.status().message();
  }

  std::filesystem::path folder_;
};

TEST_F(OpenModelFile, SaysWhatAFileIsInstead) {
  expect_says(folder_ / "absent.gguf", Code::kNotFound, "No such file");
  expect_says(write("empty.gguf", ""), Code::kInvalid, "empty");
  expect_says(write("page.gguf", "<!DOCTYPE html>"), Code::kInvalid, "HTML");
  expect_says(write("lfs.gguf", "version https://git-lfs.github.com/spec/v1\n"), Code::kInvalid, "git lfs pull");
  expect_says(write("old.bin", "lmgg1234"), Code::kInvalid, "older than GGUF");
  expect_says(write("torch.bin", "PK\x03\x04"), Code::kInvalid, "PyTorch");
  expect_says(write("config.json", "{}"), Code::kInvalid, "folder");
  expect_says(write("notes.txt", "hello"), Code::kInvalid, "'hell'");
  expect_says(write("m.stoke", "STOKE"), Code::kInvalid, "'STOK'");
  std::string header("\x02\0\0\0\0\0\0\0{}", 10);
  expect_says(write("model.safetensors", header), Code::kInvalid, "folder that holds it");
  expect_says("/dev/null", Code::kInvalid, "not a regular file");
}

TEST_F(OpenModelFile, SaysWhatAFolderLacks) {
  write("a/readme", "");
  expect_says(folder_ / "a", Code::kNotFound, "no config.json");
  write("b/x.gguf", "");
  expect_says(folder_ / "b", Code::kNotFound, "'x.gguf'");
  write("c/config.json", "{}");
  write("c/pytorch_model.bin", "");
  expect_says(folder_ / "c", Code::kNotFound, "pickle");
}

TEST_F(OpenModelFile, OpensBothKinds) {
  std::string gguf("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
  Result<ModelFile> file = open_model_file(write("empty_but_valid", gguf));
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->kind, "gguf");
  write("d/config.json", "{}");
  write("d/model.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
  Result<ModelFile> folder = open_model_file(folder_ / "d");
  ASSERT_TRUE(folder.ok()) << folder.status().message();
  EXPECT_EQ(folder->kind, "safetensors");
}

}  // namespace
}  // namespace stoke::formats
