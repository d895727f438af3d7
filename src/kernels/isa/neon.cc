// The kernel table for NEON as every 64-bit ARM processor has it.
// Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA neon
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
