// Random stored rows for tests: any bytes, with scales that keep values finite and of ordinary size.
// Thread role: any; pure. Ownership: values. Errors: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/half.h"

namespace stoke::kernels {

inline std::vector<std::byte> random_rows(DType type, int64_t rows, int64_t cols, std::mt19937& rng) {
  const size_t bytes = row_bytes(type, cols);
  std::vector<std::byte> data(static_cast<size_t>(rows) * bytes);
  for (std::byte& b : data) b = static_cast<std::byte>(rng());
  std::uniform_real_distribution<float> scale(0.001f, 0.02f);
  auto put = [&](size_t at) {
    const uint16_t h = float_to_half(scale(rng));
    std::memcpy(&data[at], &h, 2);
  };
  const DTypeInfo& t = info(type);
  if (is_float(type)) {
    for (size_t at = 0; at < data.size(); at += t.block_bytes) {
      const float v = scale(rng) * static_cast<float>(static_cast<int>(rng() % 201) - 100);
      const uint16_t h = type == DType::kF16 ? float_to_half(v) : float_to_bfloat(v);
      if (type == DType::kF32)
        std::memcpy(&data[at], &v, 4);
      else
        std::memcpy(&data[at], &h, 2);
    }
    return data;
  }
  for (size_t at = 0; at < data.size(); at += t.block_bytes) {
    switch (type) {
      case DType::kMXFP4:
        data[at] = static_cast<std::byte>(118 + rng() % 6);
        break;
      case DType::kQ2_K:
        put(at + 80);
        put(at + 82);
        break;
      case DType::kQ3_K:
        put(at + 108);
        break;
      case DType::kQ6_K:
        put(at + 208);
        break;
      case DType::kQ4_1:
      case DType::kQ5_1:
      case DType::kQ4_K:
      case DType::kQ5_K:
        put(at);
        put(at + 2);
        break;
      default:
        put(at);
    }
  }
  return data;
}

}  // namespace stoke::kernels
