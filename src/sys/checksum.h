// The checksum of a neuron store's parts (docs/FORMAT.md): the low 32 bits of XXH3-64 without a seed.
// Records of 4608 bytes at 4.7 GB/s on one busy core (SSE2, the baseline of the build).
// Thread role: any; pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoke::sys {

uint32_t checksum32(const void* data, size_t bytes);
// All 64 bits, for what tells two inputs apart rather than damaged bytes from whole ones.
uint64_t checksum64(const void* data, size_t bytes);

}  // namespace stoke::sys
