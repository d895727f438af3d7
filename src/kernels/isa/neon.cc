// The kernel table for neon. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA neon
// The order matters:
// clang-format off
#include "kernels/isa/vec16_neon.h"
#include "kernels/isa/dot_neon.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_neon = neon::make_table("neon");

}  // namespace stoke::kernels
