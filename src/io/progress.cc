#include "io/progress.h"

#include <cerrno>

#include "base/check.h"

namespace stoke::io {
namespace {

// A kernel that says "again" this often in a row for one read will not change its mind.
constexpr uint32_t kRefusalsMax = 1000;

uint32_t alignment_of(const Read& read) { return read.file != nullptr ? read.file->alignment() : 1; }

}  // namespace

void check_read(const Read& read) {
  const uint64_t low_bits = alignment_of(read) - 1;
  const auto address = reinterpret_cast<uintptr_t>(read.dst);
  CHECK(((read.offset | read.bytes | address) & low_bits) == 0);
  CHECK(read.at_least <= read.bytes);
}

std::optional<Done> Progress::advance(int64_t result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++refusals_ < kRefusalsMax) return std::nullopt;
    return Done{read_.tag, static_cast<int>(-result), begun_};
  }
  if (result < 0) return Done{read_.tag, static_cast<int>(-result), begun_};
  refusals_ = 0;
  const auto came = begun_ + static_cast<uint32_t>(result);
  if (came >= read_.at_least) return Done{read_.tag, 0, came};
  // Direct reads can go on at a block's edge only. Where not even one block came, the file ends here.
  const uint32_t whole = came & ~(alignment_of(read_) - 1);
  if (whole == begun_) return Done{read_.tag, -1, came};
  begun_ = whole;
  return std::nullopt;
}

}  // namespace stoke::io
