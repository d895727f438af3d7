// Tile registers while an object of this kind lives. Tile 0: sums, (rows, 16); 2: first operand, (rows, group); 3:
// second operand, (group / 4, 16, 4).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace stoke::kernels::STOKE_ISA {

// g++ 12 does not know that tile loads (and the load of the configuration, beyond eight bytes) read memory: what was
// stored before must have been stored in fact.
static inline void before_tile_loads() { asm volatile("" : : : "memory"); }

struct TileSession {
  explicit TileSession(int group) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    config.row_bytes[0] = config.row_bytes[3] = 64;
    config.row_bytes[2] = static_cast<uint16_t>(group);
    config.rows[0] = config.rows[2] = 16;
    config.rows[3] = static_cast<uint8_t>(group / 4);
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileSession() { _tile_release(); }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
};

}  // namespace stoke::kernels::STOKE_ISA
