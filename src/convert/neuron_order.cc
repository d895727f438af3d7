#include "convert/neuron_order.h"

#include <algorithm>
#include <numeric>

namespace stoke::convert {

std::vector<int32_t> hot_first_order(std::span<const uint32_t> fired, int64_t block) {
  const auto count = static_cast<int64_t>(fired.size());
  std::vector<uint64_t> sums(static_cast<size_t>(count / block));
  for (size_t b = 0; b < sums.size(); ++b) {
    const auto part = fired.subspan(b * static_cast<size_t>(block), static_cast<size_t>(block));
    sums[b] = std::accumulate(part.begin(), part.end(), uint64_t{0});
  }
  std::vector<int32_t> blocks(sums.size());
  std::iota(blocks.begin(), blocks.end(), 0);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [&](int32_t a, int32_t b) { return sums[static_cast<size_t>(a)] > sums[static_cast<size_t>(b)]; });
  std::vector<int32_t> order;
  order.reserve(fired.size());
  for (const int32_t b : blocks) {
    for (int64_t i = 0; i < block; ++i) order.push_back(static_cast<int32_t>(b * block + i));
  }
  for (int64_t i = std::ssize(order); i < count; ++i) order.push_back(static_cast<int32_t>(i));
  return order;
}

}  // namespace stoke::convert
