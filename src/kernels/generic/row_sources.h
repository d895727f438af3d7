// Where kLanes rows are: rows(r) is where row r's block begins. The including header has set kLanes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoke::kernels::STOKE_ISA {

// kStripRows rows of each of kStrips strips are read side by side.
static constexpr int kStripRows = 2, kStrips = kLanes / kStripRows;

struct Strips {
  const uint8_t* base;
  size_t stride, strip;
  const uint8_t* operator()(int r) const {
    return base + static_cast<size_t>(r / kStripRows) * strip + static_cast<size_t>(r % kStripRows) * stride;
  }
  // The k-th kStripRows rows of each strip.
  Strips tile(int k) const { return {base + static_cast<size_t>(k * kStripRows) * stride, stride, strip}; }
  Strips at(size_t bytes) const { return {base + bytes, stride, strip}; }
};

struct Scattered {
  const std::byte* const* rows;
  size_t offset;
  const uint8_t* operator()(int r) const { return reinterpret_cast<const uint8_t*>(rows[r]) + offset; }
  Scattered tile(int) const { return *this; }
  Scattered at(size_t bytes) const { return {rows, offset + bytes}; }
};

}  // namespace stoke::kernels::STOKE_ISA
