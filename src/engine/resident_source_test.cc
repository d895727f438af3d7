#include "engine/resident_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "sys/files.h"

namespace stoke::engine {
namespace {

using Reads = ResidentOptions::Reads;

// A file of seeded bytes in the current folder's file system (a tmpfs would refuse direct reads) and plans over it.
class ResidentSourceTest : public testing::TestWithParam<Reads> {
 protected:
  void SetUp() override {
    std::string pattern = std::filesystem::exists("build") ? "build/resident_XXXXXX" : "resident_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    bytes_.resize(3'000'017);
    uint32_t state = 1;
    for (char& c : bytes_) {
      state = state * 1664525U + 1013904223U;
      c = static_cast<char>(state >> 24);
    }
    model_.path = folder_ + "/model";
    model_.files = {model_.path};
    model_.file_sizes = {bytes_.size()};
    ASSERT_TRUE(sys::write_file_atomic(model_.path, bytes_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static MatrixSpec matrix(const std::string& name, DType type, int64_t rows, int64_t cols, int layer) {
    MatrixSpec spec;
    spec.name = name;
    spec.info = {type, rows, cols, row_bytes(type, cols)};
    spec.stored = type;
    spec.layer = layer;
    return spec;
  }
  static MatrixSpec plain(const std::string& name, DType type, int64_t rows, int64_t cols, int layer, uint64_t offset) {
    MatrixSpec spec = matrix(name, type, rows, cols, layer);
    Piece piece;
    piece.extent = {0, offset, static_cast<uint64_t>(rows) * spec.info.row_bytes};
    piece.rows = piece.source_rows = rows;
    spec.pieces = {piece};
    return spec;
  }
  static ResidentOptions options(Reads reads) {
    ResidentOptions options;
    options.reads = reads;
    options.threads = 3;
    options.chunk_bytes = 10000;
    return options;
  }
  Result<std::unique_ptr<ResidentSource>> open(std::vector<MatrixSpec> matrices, const ResidentOptions& options) {
    return ResidentSource::open(model_, WeightPlan{std::move(matrices)}, options);
  }
  std::string stored(uint64_t offset, uint64_t bytes) const { return bytes_.substr(offset, bytes); }
  static std::string text(const RowsView& view) {
    return {reinterpret_cast<const char*>(view.data), static_cast<size_t>(view.rows.size()) * view.row_bytes};
  }

  std::string folder_;
  std::string bytes_;
  formats::ModelFile model_;
};
INSTANTIATE_TEST_SUITE_P(Reads, ResidentSourceTest, testing::Values(Reads::kAuto, Reads::kBuffered, Reads::kDirect));

TEST_P(ResidentSourceTest, Acquire_GivesTheFilesBytes) {
  auto source = open({plain("embedding", DType::kF16, 500, 64, -1, 96), plain("a", DType::kQ8_0, 300, 96, 0, 64'032),
                      plain("norm", DType::kF32, 1, 7, 0, 899'968), plain("b", DType::kQ4_0, 900, 4096, 1, 900'013)},
                     options(GetParam()));
  ASSERT_TRUE(source.ok()) << source.status().message();
  model::WeightSource& weights = **source;
  EXPECT_EQ(text(weights.acquire({1}, {0, 300}).value()), stored(64'032, 300 * 102));
  EXPECT_EQ(text(weights.acquire({1}, {7, 9}).value()), stored(64'032 + 7 * 102, 2 * 102));
  EXPECT_EQ(text(weights.acquire({2}, {0, 1}).value()), stored(899'968, 28));
  EXPECT_EQ(text(weights.acquire({3}, {899, 900}).value()), stored(900'013 + 899 * 2304, 2304));
  EXPECT_EQ(text(weights.acquire({0}, {0, 500}).value()), stored(96, 64'000));
  ASSERT_TRUE((*source)->wait_all().ok());
  const LoadStats stats = (*source)->stats();
  EXPECT_TRUE(stats.finished);
  EXPECT_EQ(stats.bytes_read, 64'000U + 30'600 + 28 + 2'073'600);
  EXPECT_LE(stats.bytes_missed, stats.bytes_read - stats.bytes_read_direct);
  if (GetParam() == Reads::kBuffered) {
    EXPECT_EQ(stats.bytes_missed, stats.bytes_read);  // nobody looked
  }
  EXPECT_LE(static_cast<double>(stats.arena_bytes), 1.05 * static_cast<double>(stats.bytes_read));
  const RowsView view = weights.acquire({3}, {0, 900}).value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(view.data) % 64, 0U);
  weights.release({3}, view);
}

TEST_P(ResidentSourceTest, Pieces_FollowEachOtherAndMayTakeSomeRows) {
  MatrixSpec spec = matrix("experts", DType::kF16, 5, 32, 0);  // 64 bytes a row
  spec.pieces.resize(3);
  spec.pieces[0] = {.extent = {0, 6400, 128}, .scales = {}, .rows = 2, .source_rows = 2};
  spec.pieces[1] = {.extent = {0, 64, 640}, .scales = {}, .rows = 1, .source_rows = 10, .row_begin = 9};
  spec.pieces[2] = {
      .extent = {0, 12800, 256}, .scales = {}, .rows = 2, .source_rows = 4, .row_begin = 1, .row_step = 2};
  auto source = open({spec}, options(GetParam()));
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(text((*source)->acquire({0}, {0, 5}).value()),
            stored(6400, 128) + stored(64 + 9 * 64, 64) + stored(12800 + 64, 64) + stored(12800 + 192, 64));
}

TEST_P(ResidentSourceTest, Apart_IsNeitherReadNorHeld) {
  MatrixSpec scales = plain("scales", DType::kF16, 500, 64, 0, 96);
  scales.apart = true;
  auto source = open({scales, plain("a", DType::kQ8_0, 300, 96, 0, 64'032)}, options(GetParam()));
  ASSERT_TRUE(source.ok()) << source.status().message();
  EXPECT_EQ(text((*source)->acquire({1}, {0, 300}).value()), stored(64'032, 300 * 102));
  ASSERT_TRUE((*source)->wait_all().ok());
  EXPECT_EQ((*source)->stats().bytes_read, 300U * 102);
  EXPECT_LT((*source)->stats().arena_bytes, 500U * 64 * 2);
}

TEST_P(ResidentSourceTest, ReadRow_BeforeAndAfterLoading) {
  auto source = open({plain("embedding", DType::kF16, 20'000, 64, -1, 33)}, options(GetParam()));
  ASSERT_TRUE(source.ok());
  for (int round = 0; round < 2; ++round) {
    for (int64_t row : {19'999, 0, 12'345}) {
      std::string got(128, '\0');
      ASSERT_TRUE((*source)->read_row({0}, row, reinterpret_cast<std::byte*>(got.data())).ok());
      EXPECT_EQ(got, stored(33 + static_cast<uint64_t>(row) * 128, 128));
    }
    ASSERT_TRUE((*source)->wait_all().ok());
  }
}

TEST_P(ResidentSourceTest, Convert_GoesRowByRowThroughFloats) {
  MatrixSpec spec = plain("w", DType::kF16, 50, 32, 0, 2);
  spec.info.type = DType::kQ8_0;
  spec.info.row_bytes = row_bytes(DType::kQ8_0, 32);
  ResidentOptions opts = options(GetParam());
  opts.conversion.dequantize = [](DType type, const void* row, float* out, int64_t n) {
    ASSERT_EQ(type, DType::kF16);
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<const unsigned char*>(row)[2 * i];
  };
  opts.conversion.quantize = [](DType type, const float* row, void* out, int64_t n) {
    ASSERT_EQ(type, DType::kQ8_0);
    std::memset(out, 0, 34);
    for (int64_t i = 0; i < n; ++i) static_cast<unsigned char*>(out)[i] = static_cast<unsigned char>(row[i]);
  };
  auto source = open({spec}, opts);
  ASSERT_TRUE(source.ok());
  const std::string got = text((*source)->acquire({0}, {0, 50}).value());
  for (size_t row = 0; row < 50; ++row) {
    for (size_t i = 0; i < 32; ++i) ASSERT_EQ(got[row * 34 + i], bytes_[2 + row * 64 + 2 * i]);
  }
  std::string single(34, 'x');
  ASSERT_TRUE((*source)->read_row({0}, 3, reinterpret_cast<std::byte*>(single.data())).ok());
  EXPECT_EQ(single, got.substr(3 * 34, 34));
}

TEST_P(ResidentSourceTest, Transposed_IsTurned) {
  MatrixSpec spec = matrix("t", DType::kF32, 3, 4, 0);
  spec.layout = PieceLayout::kTransposed;
  spec.pieces = {{.extent = {0, 40, 4 * 3 * 4}, .scales = {}, .rows = 3, .source_rows = 3}};
  auto source = open({spec}, options(GetParam()));
  ASSERT_TRUE(source.ok());
  const std::string got = text((*source)->acquire({0}, {0, 3}).value());
  for (size_t r = 0; r < 3; ++r) {
    for (size_t c = 0; c < 4; ++c) EXPECT_EQ(got.substr((r * 4 + c) * 4, 4), stored(40 + (c * 3 + r) * 4, 4));
  }
}

TEST_P(ResidentSourceTest, TruncatedWhileLoading_NamesFileAndOffset) {
  std::filesystem::resize_file(model_.path, 1'500'000);  // after the header was read
  auto source = open({plain("small", DType::kF16, 10, 64, 0, 0), plain("big", DType::kQ4_0, 900, 4096, 1, 0)},
                     options(GetParam()));
  ASSERT_TRUE(source.ok());
  const Result<RowsView> rows = (*source)->acquire({1}, {0, 900});
  ASSERT_FALSE(rows.ok());
  EXPECT_EQ(rows.status().code(), Code::kCorrupt);
  EXPECT_NE(rows.status().message().find(model_.path + ": ends at offset"), std::string::npos)
      << rows.status().message();
  EXPECT_NE(rows.status().message().find("tensor big"), std::string::npos);
  EXPECT_EQ((*source)->wait_all().code(), Code::kCorrupt);
}

TEST_P(ResidentSourceTest, Cancel_EndsTheWait) {
  std::atomic<bool> cancel{true};
  ResidentOptions opts = options(GetParam());
  opts.cancel = &cancel;
  opts.conversion.dequantize = [](DType, const void*, float*, int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  opts.conversion.quantize = [](DType, const float*, void*, int64_t) {};
  MatrixSpec spec = plain("slow", DType::kF16, 5'000, 64, 0, 0);
  spec.info.type = DType::kQ8_0;
  spec.info.row_bytes = row_bytes(DType::kQ8_0, 64);
  auto source = open({spec}, opts);
  ASSERT_TRUE(source.ok());
  EXPECT_EQ((*source)->acquire({0}, {4'999, 5'000}).status().code(), Code::kCancelled);
}  // and the destructor must not wait for the rest

TEST_F(ResidentSourceTest, Open_RefusesPiecesThatDoNotFit) {
  const auto refused = [&](const MatrixSpec& spec) {
    auto source = open({spec}, options(Reads::kAuto));
    return source.ok() ? Code::kOk : source.status().code();
  };
  MatrixSpec past_end = plain("x", DType::kF16, 10, 64, 0, bytes_.size() - 100);
  EXPECT_EQ(refused(past_end), Code::kCorrupt);
  MatrixSpec far = plain("x", DType::kF16, 10, 64, 0, UINT64_MAX - 10);
  EXPECT_EQ(refused(far), Code::kCorrupt);
  MatrixSpec short_extent = plain("x", DType::kF16, 10, 64, 0, 0);
  short_extent.pieces[0].extent.bytes = 1279;
  EXPECT_EQ(refused(short_extent), Code::kCorrupt);
  MatrixSpec other_rows = plain("x", DType::kF16, 10, 64, 0, 0);
  other_rows.info.rows = 11;
  EXPECT_EQ(refused(other_rows), Code::kCorrupt);
  MatrixSpec other_file = plain("x", DType::kF16, 10, 64, 0, 0);
  other_file.pieces[0].extent.file = 1;
  EXPECT_EQ(refused(other_file), Code::kCorrupt);
}

}  // namespace
}  // namespace stoke::engine
