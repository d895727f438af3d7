#include "kernels/kernels.h"

#include <algorithm>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <array>
#include <cstring>

#include "base/check.h"
#include "kernels/isa/tables.h"

namespace stoke::kernels {
namespace {

struct Candidate {
  const Kernels* table;
  bool (*runs)();
};

bool always() { return true; }
#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
// CPUID 7.1: EAX 4. Asked for directly: compilers differ in whether they know the name.
bool has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) != 0;
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
// Tiles need the processor (CPUID 7: EDX 24, 25) and the kernel's leave to use their state (Linux 5.16).
bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!has_avx512() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kTileAndInt8 = 3u << 24;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return (edx & kTileAndInt8) == kTileAndInt8 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
constexpr std::array kCandidates = {Candidate{&k_portable, always}, Candidate{&k_avx2, has_avx2},
                                    Candidate{&k_avxvnni, has_avxvnni}, Candidate{&k_avx512, has_avx512},
                                    Candidate{&k_amx, has_amx}};
#elif defined(__aarch64__)
bool has_dotprod() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
constexpr std::array kCandidates = {Candidate{&k_portable, always}, Candidate{&k_neon, always},
                                    Candidate{&k_dotprod, has_dotprod}, Candidate{&k_i8mm, has_i8mm}};
#else
constexpr std::array kCandidates = {Candidate{&k_portable, always}};
#endif

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

const Kernels* find(const char* isa) {
  for (const Candidate& c : kCandidates) {
    if (std::strcmp(c.table->isa, isa) == 0 && c.runs()) return c.table;
  }
  return nullptr;
}

const Kernels& best() {
  const Kernels* chosen = &k_portable;
  for (const Candidate& c : kCandidates) {
    if (c.runs()) chosen = c.table;
  }
  return *chosen;
}

const char* const* runnable() {
  static const auto names = [] {
    std::array<const char*, kCandidates.size() + 1> list{};
    size_t n = 0;
    for (const Candidate& c : kCandidates) {
      if (c.runs()) list[n++] = c.table->isa;
    }
    return list;
  }();
  return names.data();
}

size_t scratch_bytes() { return std::max(kScratchFixedBytes, kFloatScratchBytes); }

namespace {

struct Layout {
  size_t q, d, s32, s16, sum16, end;
};

Layout layout(int64_t tokens, int64_t k) {
  const int64_t group = tokens == 1 ? 1 : kTokenTile;
  const size_t padded = static_cast<size_t>((tokens + group - 1) / group * group);
  const size_t blocks = padded * static_cast<size_t>(k / kActBlock);
  Layout l{};
  l.d = aligned(padded * static_cast<size_t>(k));
  l.s32 = l.d + aligned(blocks * 4);
  l.s16 = l.s32 + aligned(blocks * 4);
  l.sum16 = l.s16 + aligned(blocks * 8);
  l.end = l.sum16 + aligned(blocks * 8);
  return l;
}

}  // namespace

size_t act_bytes(int64_t tokens, int64_t k) { return layout(tokens, k).end; }

ActView act_carve(void* buffer, int64_t tokens, int64_t k) {
  CHECK(tokens >= 1 && k % kActBlock == 0);
  const Layout l = layout(tokens, k);
  std::byte* base = static_cast<std::byte*>(buffer);
  ActView v;
  v.tokens = tokens;
  v.k = k;
  v.q = reinterpret_cast<int8_t*>(base);
  v.d = reinterpret_cast<float*>(base + l.d);
  v.s32 = reinterpret_cast<float*>(base + l.s32);
  v.s16 = reinterpret_cast<float*>(base + l.s16);
  v.sum16 = reinterpret_cast<int32_t*>(base + l.sum16);
  return v;
}

}  // namespace stoke::kernels
