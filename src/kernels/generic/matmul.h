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

// Likewise for a few tokens, by STOKE_FEW, which takes whole tiles of rows and up to kFewTokens tokens.
#ifdef STOKE_FEW
template <typename Block>
static void run_gemm(const MatmulArgs& a) {
  const int64_t whole = a.x.tokens <= kFewTokens ? a.w.rows.size() / kRowTile * kRowTile : 0;
  MatmulArgs part = a;
  part.w.rows.end = part.w.rows.begin + whole;
  if (whole != 0) STOKE_FEW<Block>(part);
  if (whole == a.w.rows.size()) return;
  part.w.rows = {a.w.rows.begin + whole, a.w.rows.end};
  part.w.data += static_cast<size_t>(whole) * a.w.row_bytes;
  part.y += whole;
  gemm<Block>(part);
}
#else
template <typename Block>
static void run_gemm(const MatmulArgs& a) {
  gemm<Block>(a);
}
#endif

static void matmul(const MatmulArgs& a) {
  if (is_float(a.w.type)) return matmul_float(a);
  with_block_type(a.w.type, [&](auto* tag) {
    using Block = std::remove_const_t<std::remove_pointer_t<decltype(tag)>>;
    if (a.x.tokens == 1) {
      run_gemv<Block>(a);
    } else {
      run_gemm<Block>(a);
    }
  });
}

}  // namespace stoke::kernels::STOKE_ISA
