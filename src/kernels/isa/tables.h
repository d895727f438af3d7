// The kernel tables of this build, one a compiled instruction set.
#pragma once

#include "kernels/kernels.h"

namespace stoke::kernels {

extern const Kernels k_portable;
#if defined(__x86_64__)
extern const Kernels k_avx2;
extern const Kernels k_avxvnni;
extern const Kernels k_avx512;
extern const Kernels k_amx;
#elif defined(__aarch64__)
extern const Kernels k_neon;
extern const Kernels k_dotprod;
extern const Kernels k_i8mm;
#endif

}  // namespace stoke::kernels
