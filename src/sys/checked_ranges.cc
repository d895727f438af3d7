#include "sys/checked_ranges.h"

#include <algorithm>
#include <utility>

#include "sys/checksum.h"

namespace stoke::sys {

CheckedRanges::CheckedRanges(std::vector<CheckedRange> ranges) : ranges_(std::move(ranges)) {
  std::ranges::sort(ranges_, {}, &CheckedRange::offset);
}

const CheckedRange* CheckedRanges::find(uint64_t offset) const {
  const auto after = std::ranges::upper_bound(ranges_, offset, {}, &CheckedRange::offset);
  if (after == ranges_.begin()) return nullptr;
  const CheckedRange& range = *(after - 1);
  return offset - range.offset < range.bytes ? &range : nullptr;
}

std::optional<uint64_t> CheckedRanges::first_damaged(const std::byte* data, uint64_t offset, uint64_t bytes) const {
  const CheckedRange* range = find(offset);
  if (range == nullptr) return std::nullopt;
  const uint64_t lead = offset - range->offset;
  const uint64_t end = lead + bytes;
  for (uint64_t unit = (lead + range->unit_bytes - 1) / range->unit_bytes; unit < range->checksums.size(); ++unit) {
    const uint64_t begin = unit * range->unit_bytes;
    const uint64_t count = std::min(range->unit_bytes, range->bytes - begin);
    if (begin + count > end) break;
    if (checksum32(data + (begin - lead), count) != range->checksums[unit]) return range->offset + begin;
  }
  return std::nullopt;
}

CheckedRanges::Unit CheckedRanges::unit_of(uint64_t offset) const {
  const CheckedRange* range = find(offset);
  if (range == nullptr) return {offset, 0};
  const uint64_t begin = (offset - range->offset) / range->unit_bytes * range->unit_bytes;
  return {range->offset + begin, std::min(range->unit_bytes, range->bytes - begin)};
}

}  // namespace stoke::sys
