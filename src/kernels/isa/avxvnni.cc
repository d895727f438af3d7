// The kernel table for avxvnni: AVX2 with its VNNI. Compiled with its own flags (see kernels/CMakeLists.txt).
#define STOKE_ISA avxvnni
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

const Kernels k_avxvnni = avxvnni::make_table("avxvnni");

}  // namespace stoke::kernels
