// Products of activations with leased weights, split over the threads.
//
// One run() computes several products in one fork-join where the weights are at hand: q, k and v together, gate and up
// with the activation between them, all experts that a token takes. Rows are cut into blocks that workers take as they
// come free; which worker computes a block never matters (a row's bits depend on that row and that token only).
// Thread role: the control thread. Allocates nothing after construction.
// Errors: what the weight source says (kIo, kCorrupt, kCancelled); y is then unspecified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/scratch.h"
#include "model/weight_source.h"
#include "model/weights.h"
#include "sys/thread_pool.h"

namespace stoke::model {

// y = W x + bias for all rows of w and all tokens of x; or, where `up` is valid, the gated form
// y = act(W x + bias) * (U x + up_bias). Both matrices then have equally many rows.
struct Product {
  MatrixSlice w;
  kernels::ActView x;
  float* y = nullptr;  // y[t * y_stride + row]
  int64_t y_stride = 0;
  const float* bias = nullptr;  // (rows) or null
  MatrixSlice up;
  const float* up_bias = nullptr;
};

struct Gating {
  NamedActivation activation;
  float alpha = 0;  // kSwigluOai only
  float limit = 0;
};

class Multiplier {
 public:
  struct Limits {
    int64_t max_tokens = 0;
  };

  // The references outlive the object.
  Multiplier(const kernels::Kernels& kernels, sys::ThreadPool& threads, WeightSource& source, Limits limits);
  static size_t bytes(const sys::ThreadPool& threads, Limits limits);

  Status run(std::span<const Product> products, const Gating& gating);
  Status run(const Product& product) { return run(std::span(&product, 1), Gating()); }

  // Whether any of these wants quantised activations (float weights take FP32 ones).
  bool wants_quantized(std::span<const MatrixSlice> slices) const;
  // A view of x (tokens, k) with its quantised form carved from `buffer` (kernels::act_bytes), not yet quantised.
  // Without `quantized` the view carries the floats alone.
  static kernels::ActView view(const float* x, int64_t tokens, int64_t k, void* buffer, bool quantized);
  // Quantises where the view has room for it; splits the work by token tiles.
  void quantize(const kernels::ActView& x);
  // Between calls.
  void discard_scratch() { scratch_.discard(); }

  const kernels::Kernels& kernels() const { return kernels_; }
  sys::ThreadPool& threads() const { return threads_; }
  WeightSource& source() const { return source_; }

 private:
  struct Task;
  // The next row to compute.
  struct Cursor {
    size_t product = 0;
    int64_t row = 0;
  };
  Status lease(std::span<const Product> products, Cursor* at, std::span<Task> tasks, size_t* count);
  Status lease_one(const Product& product, int64_t row, Task* task);
  bool at_hand(const Product& product, int64_t row) const;
  void release(const Task& task);
  void layout(ScratchLayout& at);
  void run_tasks(std::span<const Task> tasks, const Gating& gating);
  void run_block(const Task& task, RowRange rows, const Gating& gating, int worker);
  void gate(const Gating& gating, float* gate, const float* up, int64_t n) const;
  void* kernel_scratch(int worker) const { return kernel_scratch_ + static_cast<size_t>(worker) * kernel_bytes_; }

  const kernels::Kernels& kernels_;
  sys::ThreadPool& threads_;
  WeightSource& source_;
  Scratch scratch_;
  std::byte* kernel_scratch_ = nullptr;  // (threads, kernel_bytes_)
  size_t kernel_bytes_ = 0;
  float* up_ = nullptr;  // (threads, up_floats_): up's rows until the activation takes them
  int64_t up_floats_ = 0;
};

}  // namespace stoke::model
