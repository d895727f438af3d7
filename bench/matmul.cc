// What products cost, by element type, shape and number of tokens: for one token the rate at which weights are read,
// for more the arithmetic rate. Weights cycle through more memory than the caches hold. Prints JSON.
// usage: bench_matmul [threads] [instruction set] [type]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "sys/memory.h"
#include "sys/thread_pool.h"

namespace stoke {
namespace {

struct Shape {
  int64_t rows, cols;
};
constexpr Shape kShapes[] = {{1536, 512}, {4096, 4096}, {4096, 11264}};
constexpr int64_t kTokens[] = {1, 8, 128, 512};
constexpr size_t kWeightBytes = size_t{192} << 20;  // read before the first matrix is used again
constexpr int64_t kBlockRows = 64;
constexpr double kSeconds = 0.4;

struct Aligned {
  explicit Aligned(size_t size) : data(static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64))) {}
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  std::byte* data;
};

// Copies of one quantised matrix, enough to fill kWeightBytes.
class Weights {
 public:
  Weights(DType type, Shape shape)
      : type_(type),
        shape_(shape),
        row_bytes_(row_bytes(type, shape.cols)),
        count_(std::max<size_t>(1, kWeightBytes / matrix_bytes())),
        memory_(std::move(sys::Memory::map(count_ * matrix_bytes()).value())) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    constexpr int64_t kDistinctRows = 16;
    std::vector<float> row(static_cast<size_t>(shape.cols));
    for (int64_t r = 0; r < kDistinctRows; ++r) {
      for (float& v : row) v = normal(rng);
      kernels::quantize_row(type, row.data(), memory_.data() + static_cast<size_t>(r) * row_bytes_, shape.cols);
    }
    const size_t filled = static_cast<size_t>(kDistinctRows) * row_bytes_, all = count_ * matrix_bytes();
    for (size_t at = filled; at < all; at += filled) {
      std::memcpy(memory_.data() + at, memory_.data(), std::min(filled, all - at));
    }
  }
  size_t matrix_bytes() const { return static_cast<size_t>(shape_.rows) * row_bytes_; }
  size_t count() const { return count_; }
  RowsView rows(size_t matrix, RowRange range) const {
    return {type_, range, shape_.cols, row_bytes_,
            memory_.data() + (matrix % count_) * matrix_bytes() + static_cast<size_t>(range.begin) * row_bytes_};
  }

 private:
  DType type_;
  Shape shape_;
  size_t row_bytes_, count_;
  sys::Memory memory_;  // huge pages, as a model's weights have: without them reads lose a third
};

// Median seconds of one product.
double measure(const kernels::Kernels& k, sys::ThreadPool& threads, const Weights& weights, Shape shape,
               int64_t tokens) {
  std::vector<float> x(static_cast<size_t>(tokens * shape.cols)), y(static_cast<size_t>(tokens * shape.rows));
  std::mt19937 rng(2);
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(rng);
  Aligned act(kernels::act_bytes(tokens, shape.cols));
  const size_t scratch_bytes = (kernels::scratch_bytes() + 63) / 64 * 64;
  Aligned scratch(scratch_bytes * static_cast<size_t>(threads.size()));
  kernels::ActView acts = kernels::act_carve(act.data, tokens, shape.cols);
  acts.f = x.data();
  acts.f_stride = shape.cols;
  k.quantize_acts(acts, 0, tokens);
  std::vector<double> seconds;
  double spent = 0;
  for (size_t run = 0; spent < kSeconds || run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    threads.parallel_for(shape.rows, kBlockRows, [&](int64_t begin, int64_t end, int worker) {
      k.matmul({.w = weights.rows(run, {begin, end}),
                .x = acts,
                .y = y.data() + begin,
                .y_stride = shape.rows,
                .scratch = scratch.data + scratch_bytes * static_cast<size_t>(worker)});
    });
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    spent += seconds.back();
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

int main_of(int argc, char** argv) {
  sys::ThreadPool threads(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  const kernels::Kernels* k = argc > 2 ? kernels::find(argv[2]) : &kernels::best();
  const DTypeInfo* only = argc > 3 ? find_dtype(argv[3]) : nullptr;
  if (k == nullptr || (argc > 3 && only == nullptr)) {
    fmt::print(stderr, "this machine does not run {}, or there is no such element type\n", argv[2]);
    return 1;
  }
  fmt::print("{{\"isa\": \"{}\", \"threads\": {}, \"products\": [", k->isa, threads.size());
  const char* separator = "\n";
  for (const DTypeInfo& type : all_dtypes()) {
    if (only != nullptr && only != &type) continue;
    for (const Shape& shape : kShapes) {
      const Weights weights(type.type, shape);
      for (const int64_t tokens : kTokens) {
        const double s = measure(*k, threads, weights, shape, tokens);
        const double operations = 2.0 * static_cast<double>(shape.rows * shape.cols * tokens);
        fmt::print(
            "{}  {{\"type\": \"{}\", \"rows\": {}, \"cols\": {}, \"tokens\": {}, \"us\": {:.1f}, "
            "\"gflops\": {:.1f}, \"gb_per_s\": {:.2f}}}",
            separator, type.name, shape.rows, shape.cols, tokens, s * 1e6, operations / s * 1e-9,
            static_cast<double>(weights.matrix_bytes()) / s * 1e-9);
        separator = ",\n";
      }
    }
  }
  fmt::print("\n]}}\n");
  return 0;
}

}  // namespace
}  // namespace stoke

int main(int argc, char** argv) { return stoke::main_of(argc, argv); }
