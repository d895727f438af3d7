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
  k.rms_norm = rms_norm;
  k.add = add;
  k.scale = scale;
  k.axpy = axpy;
  k.softcap = softcap;
  k.softmax = softmax;
  k.silu_mul = silu_mul;
  k.gelu_mul = gelu_mul;
  k.relu_mul = relu_mul;
  k.drelu_mul = drelu_mul;
  k.fatrelu_mul = fatrelu_mul;
  k.swiglu_oai_mul = swiglu_oai_mul;
  k.rope = rope;
  k.attention = &kAttention;
  k.sparse = &kSparse;
  return k;
}

}  // namespace stoke::kernels::STOKE_ISA
