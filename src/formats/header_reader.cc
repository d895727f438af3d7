#include "formats/header_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <span>

namespace stoke::formats {

static_assert(std::endian::native == std::endian::little, "model files are little-endian and read as they lie");

namespace {
constexpr size_t kBufferBytes = 64 * 1024;
}

HeaderReader::HeaderReader(ByteSource& source, uint64_t limit)
    : source_(source), limit_(std::min(limit, source.size())), buffer_(std::min<uint64_t>(kBufferBytes, limit_)) {}

Status HeaderReader::failure(Code code, const std::string& text) const {
  return Status(code, fmt::format("{}: byte {}: {}", path(), field_at_, text));
}

Status HeaderReader::bytes(void* out, size_t count, const char* what) {
  field_at_ = position();
  if (count > remaining()) {
    const char* why = limit_ < source_.size() ? "the header is longer than stoke accepts"
                                              : "the file ends there: it is cut short or corrupt; fetch it again";
    return failure(Code::kCorrupt, fmt::format("{} takes {} bytes but {} are left: {}", what, count, remaining(), why));
  }
  auto* to = static_cast<std::byte*>(out);
  while (count > 0) {
    if (used_ == filled_) {
      buffer_offset_ += used_;
      used_ = 0;
      filled_ = 0;
      size_t next = std::min<uint64_t>(buffer_.size(), limit_ - buffer_offset_);
      STOKE_TRY(source_.read(buffer_offset_, std::span(buffer_).first(next)));
      filled_ = next;
    }
    size_t take = std::min(count, filled_ - used_);
    std::memcpy(to, buffer_.data() + used_, take);
    to += take;
    used_ += take;
    count -= take;
  }
  return ok_status();
}

Status HeaderReader::string(std::string* out, uint64_t bytes_max, const char* what) {
  uint64_t length = 0;
  STOKE_TRY(number(&length, what));
  if (length > bytes_max) {
    return failure(Code::kCorrupt, fmt::format("{} claims {} bytes, more than the {} allowed: the file is corrupt",
                                               what, length, bytes_max));
  }
  if (length > remaining()) {
    return failure(Code::kCorrupt, fmt::format("{} claims {} bytes but {} are left: the file is cut short or corrupt; "
                                               "fetch it again",
                                               what, length, remaining()));
  }
  out->resize(length);
  return length == 0 ? ok_status() : bytes(out->data(), length, what);
}

}  // namespace stoke::formats
