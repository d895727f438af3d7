// Products with few of many neurons: rows reached through pointers, weighted sums of rows.
//
// What a sparse FFN needs beside matmul (pipeline/sparse_ffn.h): up rows that lie scattered in memory, and down rows
// added with the neurons' activations as weights. A neuron's down part is a row of `dim` elements (kRequantized), or
// its codes alone with the scales of its block of 32 neurons beside it (kCodes; tensor/neuron_record.h). 32 codes are
// packed as the type's blocks pack them: a block without its scale and minimum, which come first in it. THE ORDER OF
// SUMMATION: rows ascending, acc[d] = fma(h[j], w[j][d], acc[d]) in FP32, w the value that dequantize_row gives: for
// codes scale * level(code) (+ min), each rounded to FP32. The same bits on every instruction set. Thread role: any
// thread, concurrently, on disjoint outputs. dim: a multiple of 32 and of the type's block_elems.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "tensor/neuron_record.h"

namespace stoke::kernels {

// Rows reached through pointers, to be multiplied with one token.
struct GatherArgs {
  DType type = DType::kQ4_0;
  const std::byte* const* rows = nullptr;  // (count)
  int64_t count = 0;
  ActView x;                // one token
  float* y = nullptr;       // (count)
  void* scratch = nullptr;  // scratch_bytes(), 64-byte aligned, one a thread
};

// The down parts of some neurons.
struct DownRows {
  DType type = DType::kQ4_0;
  DownEncoding encoding = DownEncoding::kRequantized;
  const std::byte* const* rows = nullptr;   // (count)
  const uint16_t* const* scales = nullptr;  // kCodes: (count) rows of dim halves
  const uint16_t* const* mins = nullptr;    // kCodes of types with a minimum: likewise
  int64_t count = 0;
  int64_t dim = 0;
};

struct SparseKernels {
  // y[j] = row j . x: the bits that matmul gives.
  void (*gather_dot)(const GatherArgs& args);
  // acc[d] = fma(h[j], w[j][d], acc[d]), j ascending. scratch: scratch_bytes().
  void (*axpy_rows)(const DownRows& down, const float* h, float* acc, void* scratch);
  // out[j * stride + d - first] = w[j][d] for d in [first, first + n); first and n are multiples of 32 and of the
  // type's block_elems.
  void (*widen_rows)(const DownRows& down, int64_t first, int64_t n, float* out, int64_t stride);
  // out[d] += the sum over j ascending of fma(h[j], w[index[j] * stride + d], .), which starts from zero. n: columns, a
  // multiple of 16.
  void (*add_widened)(const float* w, int64_t stride, int64_t n, const uint8_t* index, const float* h, int64_t count,
                      float* out);
};

}  // namespace stoke::kernels
