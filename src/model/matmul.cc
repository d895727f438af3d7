#include "model/matmul.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace stoke::model {
namespace {

// Rows a worker takes at once. A prompt's block keeps up's rows of all its tokens in the cache. A single token's block
// is large, since memory is read fastest in long streams (kernels/generic/row_lanes.h), yet takes less than the 100
// microseconds after which the control thread should look at the disk.
constexpr int64_t kPromptBlockRows = 128;
constexpr int64_t kTokenBlockRows = 1024;
constexpr int64_t kTokenBlockBytes = 1 << 20;
constexpr int64_t kFewBlockRows = 256;  // of up to kernels::kFewTokens

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

size_t align(size_t bytes) { return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment; }

size_t worker_bytes() { return align(kernels::scratch_bytes()); }

int64_t up_floats(int64_t max_tokens) {
  return std::max(
      {max_tokens * kPromptBlockRows, std::min(max_tokens, kernels::kFewTokens) * kFewBlockRows, kTokenBlockRows});
}

RowsView cut(const RowsView& view, RowRange rows) {
  RowsView out = view;
  out.rows = rows;
  out.data = view.data + static_cast<size_t>(rows.begin - view.rows.begin) * view.row_bytes;
  return out;
}

// Enough blocks that the threads end together, large enough to be worth taking.
int64_t block_rows(int64_t all_rows, int64_t tokens, size_t row_bytes, int threads) {
  if (tokens > kernels::kFewTokens) {
    const int64_t even = round_up(all_rows / (int64_t{16} * threads), kernels::kRowTile);
    return std::clamp(even, kernels::kRowTile, kPromptBlockRows);
  }
  const int64_t most = tokens == 1 ? kTokenBlockRows : kFewBlockRows;
  const int64_t big = std::clamp(kTokenBlockBytes / static_cast<int64_t>(row_bytes), kernels::kRowTile, most);
  const int64_t blocks = std::max(int64_t{4} * threads, round_up((all_rows + big - 1) / big, threads));
  return std::min(round_up((all_rows + blocks - 1) / blocks, kernels::kRowTile), most);
}

}  // namespace

// The leased part of one product.
struct Multiplier::Task {
  const Product* product = nullptr;
  RowsView w;
  RowsView up;    // data is null where the product is not gated
  RowRange rows;  // of the product, counted from its first row
};

Multiplier::Multiplier(const kernels::Kernels& kernels, sys::ThreadPool& threads, WeightSource& source, Limits limits)
    : kernels_(kernels), threads_(threads), source_(source), scratch_(bytes(threads, limits)) {
  kernel_bytes_ = worker_bytes();
  up_floats_ = up_floats(limits.max_tokens);
  ScratchLayout at(scratch_.data());
  layout(at);
}

size_t Multiplier::bytes(const sys::ThreadPool& threads, Limits limits) {
  const auto workers = static_cast<size_t>(threads.size());
  return workers * worker_bytes() + align(workers * static_cast<size_t>(up_floats(limits.max_tokens)) * sizeof(float));
}

void Multiplier::layout(ScratchLayout& at) {
  kernel_scratch_ = at.take<std::byte>(threads_.size() * static_cast<int64_t>(kernel_bytes_));
  up_ = at.take<float>(threads_.size() * up_floats_);
}

bool Multiplier::wants_quantized(std::span<const MatrixSlice> slices) const {
  return std::any_of(slices.begin(), slices.end(),
                     [this](const MatrixSlice& s) { return s.valid() && !is_float(source_.matrix(s.id).type); });
}

kernels::ActView Multiplier::view(const float* x, int64_t tokens, int64_t k, void* buffer, bool quantized) {
  kernels::ActView out;
  if (quantized) out = kernels::act_carve(buffer, tokens, k);
  out.tokens = tokens;
  out.k = k;
  out.f = x;
  out.f_stride = k;
  return out;
}

void Multiplier::quantize(const kernels::ActView& x) {
  if (x.q == nullptr) return;
  threads_.parallel_for(x.tokens, kernels::kTokenTile,
                        [&](int64_t begin, int64_t end, int) { kernels_.quantize_acts(x, begin, end); });
}

Status Multiplier::run(std::span<const Product> products, const Gating& gating) {
  Cursor at;
  while (at.product < products.size()) {
    std::array<Task, kMaxLeases> tasks;
    size_t count = 0;
    const Status leased = lease(products, &at, tasks, &count);
    if (leased.ok()) run_tasks(std::span(tasks).first(count), gating);
    for (size_t i = 0; i < count; ++i) release(tasks[i]);
    STOKE_TRY(leased);
  }
  return ok_status();
}

// Leases on until all products are covered, the leases are used up, or the source has no more rows at hand.
Status Multiplier::lease(std::span<const Product> products, Cursor* at, std::span<Task> tasks, size_t* count) {
  int leases = 0;
  while (at->product < products.size()) {
    const Product& product = products[at->product];
    const int wanted = product.up.valid() ? 2 : 1;
    if (leases + wanted > kMaxLeases) break;
    leases += wanted;
    if (*count > 0 && !at_hand(product, at->row)) break;  // what is leased is computed meanwhile
    Task& task = tasks[*count];
    STOKE_TRY(lease_one(product, at->row, &task));
    ++*count;
    at->row = task.rows.end;
    if (at->row == product.w.rows.size()) *at = {.product = at->product + 1};
  }
  return ok_status();
}

bool Multiplier::at_hand(const Product& product, int64_t row) const {
  if (!source_.at_hand(product.w.id, product.w.rows.begin + row)) return false;
  return !product.up.valid() || source_.at_hand(product.up.id, product.up.rows.begin + row);
}

Status Multiplier::lease_one(const Product& product, int64_t row, Task* task) {
  task->product = &product;
  const RowRange wanted{product.w.rows.begin + row, product.w.rows.end};
  STOKE_ASSIGN(task->w, source_.acquire(product.w.id, wanted));
  task->rows = {row, row + task->w.rows.size()};
  if (!product.up.valid()) return ok_status();
  const int64_t up_row = product.up.rows.begin + row;
  Result<RowsView> up = source_.acquire(product.up.id, {up_row, up_row + task->rows.size()});
  if (!up.ok()) {
    source_.release(product.w.id, task->w);
    return up.status();
  }
  task->up = *up;
  task->rows.end = row + std::min(task->w.rows.size(), task->up.rows.size());
  return ok_status();
}

void Multiplier::release(const Task& task) {
  source_.release(task.product->w.id, task.w);
  if (task.up.data != nullptr) source_.release(task.product->up.id, task.up);
}

void Multiplier::run_tasks(std::span<const Task> tasks, const Gating& gating) {
  int64_t all_rows = 0;
  int64_t tokens = 1;
  size_t row_bytes = 1;
  for (const Task& task : tasks) {
    all_rows += task.rows.size();
    tokens = std::max(tokens, task.product->x.tokens);
    row_bytes = std::max(row_bytes, task.w.row_bytes * (task.up.data == nullptr ? 1 : 2));
  }
  const int64_t step = block_rows(all_rows, tokens, row_bytes, threads_.size());
  std::array<int64_t, kMaxLeases + 1> first_block{};
  for (size_t i = 0; i < tasks.size(); ++i) {
    first_block[i + 1] = first_block[i] + (tasks[i].rows.size() + step - 1) / step;
  }
  threads_.parallel_for(first_block[tasks.size()], 1, [&](int64_t begin, int64_t end, int worker) {
    size_t i = 0;
    for (int64_t block = begin; block < end; ++block) {
      while (block >= first_block[i + 1]) ++i;
      const int64_t row = tasks[i].rows.begin + (block - first_block[i]) * step;
      run_block(tasks[i], {row, std::min(row + step, tasks[i].rows.end)}, gating, worker);
    }
  });
}

void Multiplier::run_block(const Task& task, RowRange rows, const Gating& gating, int worker) {
  const Product& p = *task.product;
  const int64_t w_row = p.w.rows.begin + rows.begin;
  float* y = p.y + rows.begin;
  kernels_.matmul({.w = cut(task.w, {w_row, w_row + rows.size()}),
                   .x = p.x,
                   .y = y,
                   .y_stride = p.y_stride,
                   .scratch = kernel_scratch(worker)});
  if (p.bias != nullptr) {
    for (int64_t t = 0; t < p.x.tokens; ++t) kernels_.add(y + t * p.y_stride, p.bias + rows.begin, rows.size());
  }
  if (task.up.data == nullptr) return;
  const int64_t up_row = p.up.rows.begin + rows.begin;
  const int64_t up_stride = rows.size();
  float* up = up_ + worker * up_floats_;
  DCHECK(p.x.tokens * up_stride <= up_floats_);
  kernels_.matmul({.w = cut(task.up, {up_row, up_row + rows.size()}),
                   .x = p.x,
                   .y = up,
                   .y_stride = up_stride,
                   .scratch = kernel_scratch(worker)});
  for (int64_t t = 0; t < p.x.tokens; ++t) {
    if (p.up_bias != nullptr) kernels_.add(up + t * up_stride, p.up_bias + rows.begin, rows.size());
    gate(gating, y + t * p.y_stride, up + t * up_stride, rows.size());
  }
}

void Multiplier::gate(const Gating& gating, float* gate, const float* up, int64_t n) const {
  switch (gating.activation.kind) {
    case Activation::kSilu:
      return kernels_.silu_mul(gate, up, n);
    case Activation::kGelu:
      return kernels_.gelu_mul(gate, up, n);
    case Activation::kRelu:
      return kernels_.relu_mul(gate, up, n);
    case Activation::kDrelu:
      return kernels_.drelu_mul(gate, up, n);
    case Activation::kFatrelu:
      return kernels_.fatrelu_mul(gate, up, n, gating.activation.threshold);
    case Activation::kSwigluOai:
      return kernels_.swiglu_oai_mul(gate, up, n, gating.alpha, gating.limit);
  }
}

}  // namespace stoke::model
