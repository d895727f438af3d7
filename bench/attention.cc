// What attention costs: decoding one token against the length of the context, and prefilling 512 tokens, one layer.
// Prints JSON. usage: bench_attention [threads] [instruction set]
#include "model/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"

namespace stoke {
namespace {

struct Shape {
  const char* name;
  int heads, kv_heads, head_dim;
};
constexpr Shape kShapes[] = {
    {"smollm2-135m", 9, 3, 64}, {"gemma-270m", 4, 1, 256}, {"llama-7b", 32, 32, 128}, {"mistral-7b", 32, 8, 128}};
constexpr int64_t kLongest = 16384;
constexpr int64_t kPrompt = 512;
constexpr int kLayers = 4;  // used in turn, so that a layer's keys and values have left the caches nearest to the core

double median_seconds(const std::function<void(int)>& work) {
  std::vector<double> seconds;
  double spent = 0;
  for (int i = 0; i < 200 && (spent < 0.3 || i < 7); ++i) {
    const auto start = std::chrono::steady_clock::now();
    work(i % kLayers);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    spent += seconds.back();
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

class Bench {
 public:
  Bench(const Shape& shape, kv::KvType type, const kernels::Kernels& kernels, sys::ThreadPool& threads)
      : shape_(shape), kernels_(kernels), threads_(threads) {
    pool_ = kv::KvPool::create({.layers = kLayers,
                                .kv_heads = shape.kv_heads,
                                .head_dim = shape.head_dim,
                                .type = type,
                                .max_context = kLongest,
                                .pages = kLongest / kv::kPageTokens})
                .value();
    scratch_ = sys::Memory::map(model::attention_scratch_bytes(attention_shape(), threads.size(), kLongest)).value();
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    x_.resize(static_cast<size_t>(kPrompt * shape.heads * shape.head_dim));
    for (float& v : x_) v = normal(random);
    out_.resize(x_.size());
    seq_ = pool_->create_sequence();
  }

  // Fills the sequence up to `length` positions.
  void grow(int64_t length) {
    while (pool_->length(seq_) < length) {
      const int64_t n = std::min(kPrompt, length - pool_->length(seq_));
      CHECK(pool_->reserve(seq_, n).ok());
      for (int layer = 0; layer < kLayers; ++layer) put(n, layer);
      pool_->commit(seq_, n);
    }
  }

  // Writes the next n positions without keeping them.
  double store(int64_t n) {
    CHECK(pool_->reserve(seq_, n).ok());
    return median_seconds([&](int layer) { put(n, layer); });
  }

  double attend(int64_t n) {
    const model::SequenceRun run{.seq = seq_, .count = n, .pos = pool_->length(seq_) - n};
    return median_seconds([&](int layer) {
      model::attention({.shape = attention_shape(),
                        .pool = pool_.get(),
                        .layer = layer,
                        .runs = {&run, 1},
                        .q = x_.data(),
                        .q_stride = x_stride(),
                        .out = out_.data(),
                        .out_stride = x_stride(),
                        .scratch = scratch_.data()},
                       kernels_, threads_);
    });
  }

  // Grows to `context` positions and decodes the last; a JSON object and a comma.
  std::string decode(int64_t context) {
    grow(context);
    const double seconds = attend(1);
    const double position_bytes =
        static_cast<double>(kv::KvPool::page_bytes(pool_->options())) / kLayers / kv::kPageTokens;
    return fmt::format("{{\"context\": {}, \"us\": {:.1f}, \"gb_s\": {:.1f}}}{}", context, seconds * 1e6,
                       position_bytes * static_cast<double>(context) / seconds * 1e-9, context < kLongest ? ", " : "");
  }

 private:
  void put(int64_t n, int layer) {
    const model::SequenceRun run{.seq = seq_, .count = n, .pos = pool_->length(seq_)};
    model::store_kv(*pool_, run, layer, x_.data(), x_.data(), x_stride(), kernels_);
  }
  int64_t x_stride() const { return static_cast<int64_t>(shape_.heads) * shape_.head_dim; }
  model::AttentionShape attention_shape() const {
    return {.heads = shape_.heads, .kv_heads = shape_.kv_heads, .head_dim = shape_.head_dim, .scale = 0.1f};
  }

  Shape shape_;
  const kernels::Kernels& kernels_;
  sys::ThreadPool& threads_;
  std::unique_ptr<kv::KvPool> pool_;
  sys::Memory scratch_;
  std::vector<float> x_, out_;
  kv::SeqId seq_;
};

void print_shape(const Shape& shape, kv::KvType type, const kernels::Kernels& kernels, sys::ThreadPool& threads) {
  Bench bench(shape, type, kernels, threads);
  std::string decode;
  for (int64_t context = 128; context < kPrompt; context *= 2) decode += bench.decode(context);
  bench.grow(kPrompt);
  const double store = bench.store(kPrompt);
  const double prefill = bench.attend(kPrompt);
  const double flops = 4.0 * shape.heads * shape.head_dim * kPrompt * (kPrompt + 1) / 2;
  for (int64_t context = kPrompt; context <= kLongest; context *= 2) decode += bench.decode(context);
  fmt::print(
      "  {{\"shape\": \"{}\", \"kv\": \"{}\", \"store_512_us\": {:.0f}, \"prefill_512_ms\": {:.3f}, "
      "\"prefill_gflops\": {:.0f},\n   \"decode\": [{}]}}",
      shape.name, type == kv::KvType::kF16 ? "f16" : "q8_0", store * 1e6, prefill * 1e3, flops / prefill * 1e-9,
      decode);
}

int main_of(int argc, char** argv) {
  sys::ThreadPool threads(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  const kernels::Kernels* kernels = argc > 2 ? kernels::find(argv[2]) : &kernels::best();
  if (kernels == nullptr) {
    fmt::print(stderr, "this machine does not run {}\n", argv[2]);
    return 1;
  }
  fmt::print("{{\"isa\": \"{}\", \"threads\": {}, \"layer_costs\": [\n", kernels->isa, threads.size());
  const char* separator = "";
  for (const kv::KvType type : {kv::KvType::kF16, kv::KvType::kQ8_0}) {
    for (const Shape& shape : kShapes) {
      fmt::print("{}", separator);
      print_shape(shape, type, *kernels, threads);
      separator = ",\n";
    }
  }
  fmt::print("\n]}}\n");
  return 0;
}

}  // namespace
}  // namespace stoke

int main(int argc, char** argv) { return stoke::main_of(argc, argv); }
