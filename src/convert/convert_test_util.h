// What the tests of conversion share: tiny ReLU models, a store opened whole, and what its parts should hold.
// Thread role: the test's thread. Ownership: values.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "convert/convert.h"
#include "engine/model_loader.h"
#include "formats/neuron_store.h"
#include "formats/synth.h"
#include "kernels/kernels.h"
#include "sys/files.h"

namespace stoke::convert {

struct TinyModel {
  std::string activation = "relu";
  std::string type = "q8_0";
  int64_t ffn = 320;  // more than a tile of columns, and not a whole number of them
  int64_t experts = 0;
  int64_t dim = 64;
};

inline void write_tiny(const TinyModel& tiny, const std::string& path) {
  formats::SynthShape shape = *formats::free_shape("llama");
  shape.layers = 2;
  shape.dim = tiny.dim;
  shape.heads = 2;
  shape.ffn = tiny.ffn;
  shape.vocab = 300;
  shape.context = 64;
  shape.experts = tiny.experts;
  shape.experts_used = tiny.experts > 0 ? 2 : 0;
  shape.activation = tiny.activation;
  const auto written =
      formats::write_synth({.shape = shape, .type = tiny.type, .seed = 7, .activity = {.density = 0}, .output = path});
  ASSERT_TRUE(written.ok()) << written.status().message();
}

// A folder of the test's own, removed with it.
class ConvertTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = "stoke_convert_" + std::string(info->name()) + std::to_string(::getpid());
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = std::filesystem::path(testing::TempDir()) / name;
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

struct OpenedStore {
  formats::ModelFile file;
  formats::NeuronStore store;
  std::string bytes;

  const std::byte* at(uint64_t offset) const { return reinterpret_cast<const std::byte*>(bytes.data()) + offset; }
};

inline void open_store(const std::string& path, OpenedStore* out) {
  auto file = formats::open_model_file(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  out->file = *file;
  auto store = formats::read_neuron_store(out->file);
  ASSERT_TRUE(store.ok()) << store.status().message();
  out->store = *store;
  out->bytes = *sys::read_file(path);
}

// A matrix of the source: its stored rows, and their values.
struct SourceMatrix {
  DType type = DType::kF32;
  int64_t cols = 0;
  std::string bytes;
  std::vector<float> values;

  const char* row(int64_t r) const { return bytes.data() + static_cast<size_t>(r) * row_bytes(type, cols); }
  float value(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }
};

inline SourceMatrix read_matrix(const formats::ModelFile& file, const std::string& name) {
  const formats::TensorEntry* tensor = file.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  SourceMatrix out{.type = tensor->type, .cols = tensor->cols()};
  out.bytes.resize(tensor->extent.bytes);
  const auto source = sys::File::open_read(file.files[tensor->extent.file]);
  EXPECT_TRUE(source->pread_full(out.bytes.data(), out.bytes.size(), tensor->extent.offset).ok());
  out.values.resize(static_cast<size_t>(tensor->rows() * tensor->cols()));
  for (int64_t r = 0; r < tensor->rows(); ++r) {
    kernels::best().dequantize_row(out.type, out.row(r), out.values.data() + r * out.cols, out.cols);
  }
  return out;
}

}  // namespace stoke::convert
