// The kernel table for portable. Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA portable
// The order matters:
// clang-format off
#include "kernels/isa/vec16_portable.h"
#include "kernels/isa/dot_portable.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_portable = portable::make_table("portable");

}  // namespace stoke::kernels
