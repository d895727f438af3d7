// The product entry of the kernel table: looks at the type, and at one token or many.
#pragma once

#include <type_traits>

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

// An instruction set with a product of its own for one token says so by STOKE_GEMV.
#ifdef STOKE_GEMV
template <typename Block>
static void run_gemv(const MatmulArgs& a) {
  STOKE_GEMV<Block>(a);
}
#else
template <typename Block>
static void run_gemv(const MatmulArgs& a) {
  gemv<Block>(a);
}
#endif

static void matmul(const MatmulArgs& a) {
  if (is_float(a.w.type)) return matmul_float(a);
  with_block_type(a.w.type, [&](auto* tag) {
    using Block = std::remove_const_t<std::remove_pointer_t<decltype(tag)>>;
    if (a.x.tokens == 1) {
      run_gemv<Block>(a);
    } else {
      gemm<Block>(a);
    }
  });
}

}  // namespace stoke::kernels::STOKE_ISA
