// Loops that show what the processor can do at most: nothing but multiply-adds in registers, or nothing but loads.
//
// They are the yardstick that measured kernels are held against. Thread role: any; each call computes on its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stoke::sys {

struct PeakLoop {
  const char* name;     // the instruction set: "avx512_vnni", "amx_int8", "avx2_fma"
  bool int8;            // integer products of bytes; otherwise FP32
  double ops_per_step;  // a multiply-add counts as two
  void (*run)(int64_t steps);
};

// Those that this processor runs, slowest first in each kind. Asks the kernel's permission for AMX where there is AMX.
std::vector<PeakLoop> peak_loops();

// Reads every byte of [data, data + bytes) once with the widest loads there are. Returns a value that depends on all of
// them. Requires: bytes is a multiple of 1024, data 64-byte aligned.
uint64_t read_all(const std::byte* data, size_t bytes);

}  // namespace stoke::sys
