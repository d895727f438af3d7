// e^x from IEEE additions and multiplications alone: the C library's differs between machines in the last bit, which
// would make a seed mean different tokens. Relative error below 1e-13 (tested), far below what a draw can show.
#pragma once

#include <cmath>

namespace stoke::sampling {

// Requires: x is not NaN. 0 below -700; saturates above 700.
inline double exact_exp(double x) {
  if (x < -700) return 0;
  if (x > 700) x = 700;
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0.693147180369123816490;  // 33 significant bits: k * kLn2High is exact
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  const double k = std::floor(x * kLog2E + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln2 / 2
  double sum = 1;
  for (int i = 14; i >= 1; --i) sum = 1 + sum * r / i;  // Horner over r^i / i!
  return std::ldexp(sum, static_cast<int>(k));
}

}  // namespace stoke::sampling
