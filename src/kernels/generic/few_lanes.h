// A few tokens, kLanes rows side by side: see row_lanes.h.
#pragma once

#include "kernels/generic/row_lanes.h"

namespace stoke::kernels::STOKE_ISA {

// From there on panels are as fast, though they compute whole tiles of sixteen.
static constexpr int64_t kFewTokens = 12;

// Requires: 2 to kFewTokens tokens.
template <typename Block>
static void few_lanes(const MatmulArgs& a) {
  matmul_lanes<Block>(a, lane_acts<kTokenTile>(a.x));
}

}  // namespace stoke::kernels::STOKE_ISA
