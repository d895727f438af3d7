// The product entry of the kernel table: looks at the type, and at one token or many.
#pragma once

#include <type_traits>

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

static void matmul(const MatmulArgs& a) {
  if (is_float(a.w.type)) return matmul_float(a);
  with_block_type(a.w.type, [&](auto* tag) {
    using Block = std::remove_const_t<std::remove_pointer_t<decltype(tag)>>;
    if (a.x.tokens == 1) {
      gemv<Block>(a);
    } else {
      gemm<Block>(a);
    }
  });
}

}  // namespace stoke::kernels::STOKE_ISA
