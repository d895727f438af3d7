// The product entry of the kernel table: looks at the type, and at one token or many.
#pragma once

#include <type_traits>

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// Instruction sets with lanes (isa/lanes_*.h) have products of their own for one token and for a few.
template <typename Block>
static void run_product(const MatmulArgs& a) {
#ifdef STOKE_LANES
  if (a.x.tokens == 1) return matmul_lanes<Block>(a, lane_acts<1>(a.x));
  if (a.x.tokens <= kFewTokens) return matmul_lanes<Block>(a, lane_acts<kTokenTile>(a.x));
#else
  if (a.x.tokens == 1) return gemv<Block>(a);
#endif
  gemm<Block>(a);
}

static void matmul(const MatmulArgs& a) {
  if (is_float(a.w.type)) return matmul_float(a);
  with_block_type(a.w.type,
                  [&](auto* tag) { run_product<std::remove_const_t<std::remove_pointer_t<decltype(tag)>>>(a); });
}

}  // namespace stoke::kernels::STOKE_ISA
