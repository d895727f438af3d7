// What all backends share: how far a read has come, and what one more result of the system means for it.
//
// Thread role: a Progress belongs to one thread at a time. Ownership: none. Errors: in the Done.
#pragma once

#include <cstdint>
#include <optional>

#include "io/reader.h"

namespace stoke::io {

// Stops on what a caller may not do: bytes, offset or dst against the file's alignment, at_least above bytes.
void check_read(const Read& read);

class Progress {
 public:
  Progress() = default;
  explicit Progress(const Read& read) : read_(read) {}

  const Read& read() const { return read_; }
  // What to ask the system for next.
  uint64_t offset() const { return read_.offset + begun_; }
  uint32_t bytes() const { return read_.bytes - begun_; }
  std::byte* dst() const { return read_.dst + begun_; }
  // `result`: bytes that came for that, or a negated errno. nullopt: ask again.
  std::optional<Done> advance(int64_t result);

 private:
  Read read_;
  uint32_t begun_ = 0;     // a multiple of the file's alignment: what came, less a torn block, which is read again
  uint32_t refusals_ = 0;  // in a row
};

}  // namespace stoke::io
