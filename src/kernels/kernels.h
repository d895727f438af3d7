// The kernel table: every hot loop of stoke behind one set of function pointers, chosen once per process.
//
// Kernels are pure leaves: pointers in, values out; no allocation, lock, thread, log or global. Each algorithm is
// written once (src/kernels/generic/*.h, over the sixteen-lane wrappers and dot products in src/kernels/isa) and
// compiled once per instruction set; `portable` is the slow twin that the others are compared with, bit for bit.
//
// THE ORDER OF SUMMATION (the exactness contract, docs/exactness.md). For quantised weights:
//   activations: blocks of 32, d = max|x| / 127, q = round_even(x * (127 / max|x|)), all in FP32
//   isum[g]  = sum over the group of (u - offset) * q         exact integers
//   acc      = fma(dw[g] * dx[g], float(isum[g]), acc)        g ascending, one FP32 accumulator an output
//   acc      = fma(mw[g], dx[g] * float(sum q over g), acc)   directly after, for types with a minimum
//   dw = FP32 product of the block's and the group's scale; mw likewise (negative where the format subtracts).
// For float weights: 16 lanes, lane l sums k = l, l+16, ... by FMA ascending; then the lanes are added as the tree
//   (l, l+8), (l, l+4), (l, l+2), (l, l+1).
// The same for one token or many, any row range, any thread: a row's output depends on that row and that token only.
//
// Thread role: any thread, concurrently, on disjoint outputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/matrix.h"

namespace stoke::kernels {

// Tokens handled side by side by the batched products; activations of more than one token are padded to this.
inline constexpr int64_t kTokenTile = 16;
// Row granularity at which work should be split between threads.
inline constexpr int64_t kRowTile = 16;
inline constexpr int64_t kActBlock = 32;
// Up to so many tokens are multiplied as one is, where the instruction set has a kernel for that: rows at the speed of
// memory. From there on panels are as fast, though they compute whole tiles of sixteen.
inline constexpr int64_t kFewTokens = 12;
// Scratch of products with float weights, whatever the columns. Fewer rows or columns a tile fit a smaller second-level
// cache and are 10 to 25 % slower where it has 2 MiB.
inline constexpr size_t kFloatScratchBytes = size_t{824} << 10;

// Activations of `tokens` tokens, quantised for products with quantised weights and/or plain FP32 for float weights.
// Token group: G = 1 if tokens == 1 else 16; tiles = ceil(tokens / G); padding tokens are zero.
struct ActView {
  int64_t tokens = 0;
  int64_t k = 0;                   // elements a token; a multiple of 32 where q is used
  const int8_t* q = nullptr;       // (tiles, k/32, 8, G, 4): quad-interleaved bytes
  const float* d = nullptr;        // (tiles, k/32, G) scale
  const float* s32 = nullptr;      // (tiles, k/32, G) d * sum of q over the block
  const float* s16 = nullptr;      // (tiles, k/16, G) d * sum of q over each half block
  const int32_t* sum16 = nullptr;  // (tiles, k/16, G) sum of q over each half block
  const float* f = nullptr;        // (tokens, f_stride) FP32 originals
  int64_t f_stride = 0;

  int64_t group() const { return tokens == 1 ? 1 : kTokenTile; }
};

// Bytes that the quantised part of an ActView needs, and the carving of one 64-byte aligned buffer into it.
size_t act_bytes(int64_t tokens, int64_t k);
// Requires: buffer holds act_bytes(tokens, k) bytes, 64-byte aligned. The view's f is set by the caller.
ActView act_carve(void* buffer, int64_t tokens, int64_t k);

// y = W x for the rows in `w` and all tokens of `x`.
struct MatmulArgs {
  RowsView w;
  ActView x;
  float* y = nullptr;       // y[t * y_stride + (row - w.rows.begin)]
  int64_t y_stride = 0;     // floats between tokens
  void* scratch = nullptr;  // scratch_bytes(), 64-byte aligned, one a thread
};

// What a tile of 64 cache positions looks like to the attention kernels; see kernels/attention.h.
struct AttentionKernels;
// Products with few of many rows; see kernels/sparse.h.
struct SparseKernels;

struct Kernels {
  const char* isa;

  // Quantises tokens [t0, t1) of x.f into the carved buffers of x. Splitting by multiples of 16 tokens is safe
  // between threads. Also defines padding.
  void (*quantize_acts)(const ActView& x, int64_t t0, int64_t t1);

  // Products; the entry looks at w.type. tokens == 1 runs the row-streaming kernel, more the batched one or, where the
  // instruction set has one, a kernel for few. Same bits.
  void (*matmul)(const MatmulArgs& args);

  // Elements of one row as FP32 (embedding look-up, tests). n: a multiple of block_elems.
  void (*dequantize_row)(DType type, const void* row, float* out, int64_t n);

  // out[i] = x[i] * w[i] / sqrt(mean(x^2) + eps), w taken as (1 + w) where plus_one. n elements. out may be x.
  void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, bool plus_one, float* out);
  void (*add)(float* x, const float* y, int64_t n);            // x += y
  void (*scale)(float* x, float a, int64_t n);                 // x *= a
  void (*axpy)(float* y, const float* x, float a, int64_t n);  // y = fma(a, x, y)
  void (*softcap)(float* x, float cap, int64_t n);             // x = cap * tanh(x / cap)
  void (*softmax)(float* x, int64_t n);                        // in place, over n

  // Gated activations, in place on gate: gate[i] = act(gate[i]) * up[i]. `limit` is used by swiglu_oai only.
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  void (*gelu_mul)(float* gate, const float* up, int64_t n);  // tanh form
  void (*relu_mul)(float* gate, const float* up, int64_t n);
  void (*drelu_mul)(float* gate, const float* up, int64_t n);  // relu(gate) * relu(up)
  // gate > threshold ? gate * up : 0
  void (*fatrelu_mul)(float* gate, const float* up, int64_t n, float threshold);
  void (*swiglu_oai_mul)(float* gate, const float* up, int64_t n, float alpha, float limit);

  // Rotary embedding of one head in place; cos/sin hold n_rot/2 values for this position.
  // neox: pairs (i, i + n_rot/2); otherwise pairs (2i, 2i+1). Elements from n_rot on stay.
  void (*rope)(float* head, const float* cos, const float* sin, int64_t n_rot, bool neox);

  const AttentionKernels* attention;
  const SparseKernels* sparse;
};

// Scratch of products with quantised weights, whatever the shape.
inline constexpr size_t kScratchFixedBytes = 384 * 1024;
// What MatmulArgs::scratch must hold for any product.
size_t scratch_bytes();

// The table for an instruction set by name ("portable"; "avx2", "avxvnni", "avx512", "amx"; "neon", "dotprod", "i8mm");
// null when this build does not have it or this processor cannot run it.
const Kernels* find(const char* isa);
// The best one this processor runs.
const Kernels& best();
// Names of all that this processor can run, slowest first, null-terminated.
const char* const* runnable();

}  // namespace stoke::kernels
