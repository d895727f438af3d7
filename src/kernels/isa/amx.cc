// The kernel table for AVX-512 with AMX tiles (int8).
// Compiled with that instruction set's flags (see kernels/CMakeLists.txt).
#define STOKE_ISA amx
#define STOKE_GEMM_HEADER "kernels/isa/gemm_amx.h"
#define STOKE_SPARSE_HEADER "kernels/isa/sparse_avx512.h"
// The order matters:
// clang-format off
#include "kernels/isa/vec16_avx512.h"
// The tile product takes signed bytes on both sides, so panels hold q itself.
#define STOKE_SIGNED_PANELS
#include "kernels/isa/dot_avx512.h"
#include "kernels/isa/lanes_avx512.h"
#include "kernels/isa/all.h"
// clang-format on
#include "kernels/isa/tables.h"

namespace stoke::kernels {

const Kernels k_amx = amx::make_table("amx");

}  // namespace stoke::kernels
