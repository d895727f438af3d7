// FP32 to any stored element type: what `--quant`, `convert` and the tests use.
//
// Blocks are fitted for the least squared error, weighted towards larger elements: scales (and minima) are searched
// near the one that covers the block's range, then re-solved by least squares. The same input gives the same bytes on
// every machine: no instruction set is chosen here.
// Cost: about 1 ns an element for Q8_0, 10-20 ns for the searched types, 50 ns for IQ4. Thread role: any; pure.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace stoke::kernels {

// Writes row_bytes(type, n) bytes to out. Elements that are not finite give unspecified values in their block.
// Requires: n is a multiple of the type's block_elems.
void quantize_row(DType type, const float* x, void* out, int64_t n);

}  // namespace stoke::kernels
