// The order of a store's neurons: those that fire most first.
//
// Thread role: any; pure functions. Ownership: values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace stoke::convert {

// order[i] is the source's neuron that place i takes: by falling counts, the source's order where they are equal.
// Blocks of `block` neurons stay together (1: none), ordered by their sums; what is left behind the last whole block
// stays there.
std::vector<int32_t> hot_first_order(std::span<const uint32_t> fired, int64_t block);

}  // namespace stoke::convert
