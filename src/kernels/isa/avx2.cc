// The kernel table for avx2. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA avx2
#define STOKE_GEMM_HEADER "kernels/generic/pack_lanes.h"
#define STOKE_SPARSE_HEADER "kernels/generic/sparse_lanes.h"
// The order matters:
// clang-format off
#include "kernels/isa/vec16_avx2.h"
#include "kernels/isa/dot_avx2.h"
#include "kernels/isa/lanes_avx2.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_avx2 = avx2::make_table("avx2");

}  // namespace stoke::kernels
