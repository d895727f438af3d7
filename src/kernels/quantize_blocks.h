// One block of each quantised type from its elements; see quantize.h. Thread role: any; pure.
#pragma once

#include "tensor/blocks.h"

namespace stoke::kernels {

// x: 32 elements.
void quantize_block(const float* x, BlockQ4_0& out);
void quantize_block(const float* x, BlockQ4_1& out);
void quantize_block(const float* x, BlockQ5_0& out);
void quantize_block(const float* x, BlockQ5_1& out);
void quantize_block(const float* x, BlockQ8_0& out);
void quantize_block(const float* x, BlockIQ4_NL& out);
void quantize_block(const float* x, BlockMXFP4& out);
// x: 256 elements.
void quantize_block(const float* x, BlockQ2_K& out);
void quantize_block(const float* x, BlockQ3_K& out);
void quantize_block(const float* x, BlockQ4_K& out);
void quantize_block(const float* x, BlockQ5_K& out);
void quantize_block(const float* x, BlockQ6_K& out);
void quantize_block(const float* x, BlockIQ4_XS& out);

}  // namespace stoke::kernels
