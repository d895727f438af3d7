// Which ranges of a file have checksums, and whether bytes that were read have them.
//
// A range is cut into units of equal size (the last may be shorter), one checksum each (checksum.h). What is read need
// not begin or end with a unit: only the units that lie in it whole are looked at.
// Thread role: any, const after construction. Ownership: the checksums are the caller's, and outlive this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace stoke::sys {

struct CheckedRange {
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
  uint64_t unit_bytes = 0;
  std::span<const uint32_t> checksums;  // one a unit
};

class CheckedRanges {
 public:
  CheckedRanges() = default;
  // Requires: ranges do not overlap.
  explicit CheckedRanges(std::vector<CheckedRange> ranges);

  // Where the first unit begins whose checksum the bytes at [offset, offset + bytes) do not have; nullopt: all is well,
  // or nothing is known. Requires: the bytes lie within one range, or outside of all.
  std::optional<uint64_t> first_damaged(const std::byte* data, uint64_t offset, uint64_t bytes) const;
  // The unit that holds a byte; {offset, 0} where none does.
  struct Unit {
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };
  Unit unit_of(uint64_t offset) const;

 private:
  const CheckedRange* find(uint64_t offset) const;

  std::vector<CheckedRange> ranges_;  // by offset
};

}  // namespace stoke::sys
