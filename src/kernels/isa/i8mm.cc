// The kernel table for NEON with 8-bit matrix products (ARMv8.6).
// Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA i8mm
#define STOKE_GEMM_HEADER "kernels/isa/gemm_i8mm.h"
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

const Kernels k_i8mm = i8mm::make_table("i8mm");

}  // namespace stoke::kernels
