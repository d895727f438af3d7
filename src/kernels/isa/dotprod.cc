// The kernel table for NEON with the dot product (ARMv8.2).
// Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA dotprod
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

const Kernels k_dotprod = dotprod::make_table("dotprod");

}  // namespace stoke::kernels
