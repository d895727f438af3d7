// The aligned range around bytes of a file, as direct reads want it. Thread role: any; pure.
#pragma once

#include <cstddef>
#include <cstdint>

#include "io/reader.h"
#include "sys/files.h"

namespace stoke::pipeline {

// Requires: dst has room for the range, which reaches less than one alignment beyond the bytes on either side.
inline io::Read superset(const sys::File& file, uint64_t offset, uint64_t bytes, std::byte* dst) {
  const uint64_t align = file.alignment();
  const uint64_t begin = offset / align * align;
  const uint64_t lead = offset - begin;
  return {.file = &file,
          .offset = begin,
          .bytes = static_cast<uint32_t>((lead + bytes + align - 1) / align * align),
          .at_least = static_cast<uint32_t>(lead + bytes),
          .dst = dst};
}

}  // namespace stoke::pipeline
