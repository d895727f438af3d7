#include "sys/peak.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "sys/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stoke::sys {
namespace {

// Independent sums, enough to hide the latency of two multiply-adds a cycle. Their loops must be unrolled even at -O2:
// a sum that lives in memory costs ten times the instruction.
constexpr int kSums = 12;
constexpr double kOpsPerMac = 2;

bool has(const std::vector<std::string>& features, std::string_view name) {
  return std::find(features.begin(), features.end(), name) != features.end();
}

// Sixteen 64-byte vectors a step in four sums. The attribute of the caller says what a vector becomes.
using Vector [[gnu::vector_size(64)]] = uint64_t;
[[gnu::always_inline]] inline uint64_t read_vectors(const std::byte* data, size_t bytes) {
  const auto* at = reinterpret_cast<const Vector*>(data);
  const Vector* const end = at + bytes / sizeof(Vector);
  Vector sums[4] = {};
  for (; at < end; at += 16) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sums[i % 4] ^= at[i];
  }
  const Vector all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  uint64_t folded = 0;
  for (int i = 0; i < 8; ++i) folded ^= all[i];
  return folded;
}

uint64_t read_plain(const std::byte* data, size_t bytes) { return read_vectors(data, bytes); }

#if defined(__x86_64__)

// The empty asm keeps each sum alive and in a register; without it the compiler removes the loop.

[[gnu::target("avx2")]] uint64_t read_avx2(const std::byte* data, size_t bytes) { return read_vectors(data, bytes); }
[[gnu::target("avx512f")]] uint64_t read_avx512(const std::byte* data, size_t bytes) {
  return read_vectors(data, bytes);
}

// All loops over the sums are unrolled: at -O2 one that is not keeps them in memory.
[[gnu::target("avx2")]] void int8_avx2(int64_t steps) {
  __m256i sums[kSums];
  __m256i a = _mm256_set1_epi8(3);
  const __m256i b = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 12
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
      asm volatile("" : "+x"(sum));
    }
  }
}

[[gnu::target("avx512f,avx512vnni")]] void int8_avx512_vnni(int64_t steps) {
  __m512i sums[kSums];
  const __m512i a = _mm512_set1_epi8(3);
  const __m512i b = _mm512_set1_epi8(5);
#pragma GCC unroll 12
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, a, b);
      asm volatile("" : "+v"(sum));
    }
  }
}

[[gnu::target("avx2,fma")]] void fp32_avx2(int64_t steps) {
  __m256 sums[kSums];
  const __m256 a = _mm256_set1_ps(0.5F);
#pragma GCC unroll 12
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(sum, a, a);
      asm volatile("" : "+x"(sum));
    }
  }
}

[[gnu::target("avx512f")]] void fp32_avx512(int64_t steps) {
  __m512 sums[kSums];
  const __m512 a = _mm512_set1_ps(0.5F);
#pragma GCC unroll 12
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(sum, a, a);
      asm volatile("" : "+v"(sum));
    }
  }
}

// Palette 1, as the processor's manual lays it out: all eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr int kTileSums = 4;
constexpr double kTileMacs = 16 * 16 * 64;

[[gnu::target("amx-tile,amx-int8")]] void int8_amx(int64_t steps) {
  const TileConfig config;
  asm volatile("" ::"r"(&config) : "memory");  // the intrinsic tells the compiler of the first eight bytes only
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t step = 0; step < steps; ++step) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
}

#elif defined(__aarch64__)

// clang-format off
#define STOKE_TWELVE(op, tail)                                                                                 \
  op " v0." tail op " v1." tail op " v2." tail op " v3." tail op " v4." tail op " v5." tail                    \
  op " v6." tail op " v7." tail op " v16." tail op " v17." tail op " v18." tail op " v19." tail
#define STOKE_SUMS "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19"
// clang-format on

void int8_dotprod(int64_t steps) {
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile(".arch armv8.2-a+dotprod\n" STOKE_TWELVE("sdot", "4s, v20.16b, v21.16b\n")::: STOKE_SUMS);
  }
}

void int8_i8mm(int64_t steps) {
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile(".arch armv8.2-a+i8mm\n" STOKE_TWELVE("smmla", "4s, v20.16b, v21.16b\n")::: STOKE_SUMS);
  }
}

void fp32_neon(int64_t steps) {
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile(STOKE_TWELVE("fmla", "4s, v20.4s, v21.4s\n")::: STOKE_SUMS);
  }
}

#endif

}  // namespace

std::vector<PeakLoop> peak_loops() {
  const std::vector<std::string> features = cpu_features();
  std::vector<PeakLoop> loops;
#if defined(__x86_64__)
  if (has(features, "avx2")) loops.push_back({"avx2", true, kSums * 32 * kOpsPerMac, int8_avx2});
  if (has(features, "avx512_vnni")) loops.push_back({"avx512_vnni", true, kSums * 64 * kOpsPerMac, int8_avx512_vnni});
  if (has(features, "amx_int8") && request_amx() == AmxPermission::kGranted) {
    loops.push_back({"amx_int8", true, kTileSums * kTileMacs * kOpsPerMac, int8_amx});
  }
  if (has(features, "avx2") && has(features, "fma")) {
    loops.push_back({"avx2_fma", false, kSums * 8 * kOpsPerMac, fp32_avx2});
  }
  if (has(features, "avx512f")) loops.push_back({"avx512_fma", false, kSums * 16 * kOpsPerMac, fp32_avx512});
#elif defined(__aarch64__)
  if (has(features, "dotprod")) loops.push_back({"dotprod", true, kSums * 16 * kOpsPerMac, int8_dotprod});
  if (has(features, "i8mm")) loops.push_back({"i8mm", true, kSums * 32 * kOpsPerMac, int8_i8mm});
  loops.push_back({"neon_fma", false, kSums * 4 * kOpsPerMac, fp32_neon});
#endif
  return loops;
}

uint64_t read_all(const std::byte* data, size_t bytes) {
#if defined(__x86_64__)
  const std::vector<std::string> features = cpu_features();
  if (has(features, "avx512f")) return read_avx512(data, bytes);
  if (has(features, "avx2")) return read_avx2(data, bytes);
#endif
  return read_plain(data, bytes);
}

}  // namespace stoke::sys
