// The kernel table for neon. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA neon
#define STOKE_GEMV gemv_lanes
#define STOKE_GEMV_HEADER "kernels/generic/row_lanes.h"
#define STOKE_FEW few_lanes
#define STOKE_FEW_HEADER "kernels/generic/few_lanes.h"
#define STOKE_GEMM_HEADER "kernels/generic/pack_lanes.h"
#define STOKE_SPARSE_HEADER "kernels/generic/sparse_lanes.h"
// The order matters:
// clang-format off
#include "kernels/isa/vec16_neon.h"
#include "kernels/isa/dot_neon.h"
#include "kernels/isa/lanes_neon.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_neon = neon::make_table("neon");

}  // namespace stoke::kernels
