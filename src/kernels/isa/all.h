// The algorithms, in the order in which they build on each other. The including file has set STOKE_ISA and included its
// vec16_*.h and dot_*.h before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

// The order matters:
// clang-format off
#include "kernels/generic/unpack.h"
#include "kernels/generic/quantize_acts.h"
#ifdef STOKE_LANES
#include "kernels/generic/row_lanes.h"
#else
#include "kernels/generic/gemv.h"
#endif
#include "kernels/generic/gemm.h"
#include "kernels/generic/matmul_float.h"
#include "kernels/generic/matmul.h"
#include "kernels/generic/elementwise.h"
#include "kernels/generic/attention.h"
#include "kernels/generic/sparse.h"
#include "kernels/generic/table.h"
// clang-format on
