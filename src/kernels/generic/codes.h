// How weights' codes reach an integer dot product, which may want one unsigned operand.
#pragma once

#include <bit>
#include <cstdint>

namespace stoke::kernels::STOKE_ISA {

// Which bytes an instruction set's dot product takes for weights (activations are signed): signed ones only, unsigned
// ones only, or signed ones and unsigned ones below 128.
enum class DotTakes : uint8_t { kSigned, kUnsigned, kEither };

// A byte is the code's value plus kBias; sums are too large by kBias times the sum of activations. kMost: the largest
// unsigned byte.
template <bool kSignedOf, int kMostOf, int kBiasOf>
struct Codes {
  static constexpr bool kSigned = kSignedOf;
  static constexpr int kMost = kMostOf;
  static constexpr int kBias = kBiasOf;
};

// T: BlockTraits of a type.
template <DotTakes kTakes, typename T>
constexpr auto codes_for() {
  if constexpr (kTakes != DotTakes::kSigned && !T::kSigned) {
    return Codes<false, T::kMost, T::kOffset>();
  } else if constexpr (kTakes == DotTakes::kUnsigned) {
    return Codes<false, 255, 128>();
  } else {
    return Codes<true, 0, 0>();
  }
}

// a * kFactor by shifts: a product of 32-bit lanes takes ten cycles.
template <int kFactor>
static inline I times(I a) {
  constexpr int kLow = std::countr_zero(static_cast<unsigned>(kFactor));
  constexpr int kRest = kFactor - (1 << kLow);
  if constexpr (kRest == 0) return ishift_left<kLow>(a);
  if constexpr (kRest != 0) return iadd(ishift_left<kLow>(a), times<kRest>(a));
}

}  // namespace stoke::kernels::STOKE_ISA
