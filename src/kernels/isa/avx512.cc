// The kernel table for avx512. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA avx512
#define STOKE_GEMM_HEADER "kernels/isa/gemm_avx512.h"
#define STOKE_GEMV gemv_avx512
#define STOKE_GEMV_HEADER "kernels/isa/gemv_avx512.h"
#define STOKE_SPARSE_HEADER "kernels/isa/sparse_avx512.h"
#define STOKE_FEW few_avx512
// The order matters:
// clang-format off
#include "kernels/isa/vec16_avx512.h"
#include "kernels/isa/dot_avx512.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_avx512 = avx512::make_table("avx512");

}  // namespace stoke::kernels
