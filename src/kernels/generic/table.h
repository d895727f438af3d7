// Puts this instruction set's functions into a kernel table. Included last by every src/kernels/isa/*.cc.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels::STOKE_ISA {

static constexpr Kernels make_table(const char* name) {
  Kernels k{};
  k.isa = name;
  k.quantize_acts = quantize_acts;
  k.matmul = matmul;
  k.dequantize_row = dequantize_row;
  return k;
}

}  // namespace stoke::kernels::STOKE_ISA
