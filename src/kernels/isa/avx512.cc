// The kernel table for avx512. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA avx512
#define STOKE_GEMM_HEADER "kernels/generic/pack_lanes.h"
#define STOKE_SPARSE_HEADER "kernels/isa/sparse_avx512.h"
// The order matters:
// clang-format off
#include "kernels/isa/vec16_avx512.h"
#include "kernels/isa/dot_avx512.h"
#include "kernels/isa/lanes_avx512.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_avx512 = avx512::make_table("avx512");

}  // namespace stoke::kernels
