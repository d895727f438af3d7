// Reads little-endian numbers and strings forward from a ByteSource through one fixed buffer.
//
// It never reads past `limit` and never allocates from a length that it has not compared with the bytes left.
// Failures name the file, the byte and what was being read. Thread role: any, one object per thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "base/status.h"
#include "formats/byte_source.h"

namespace stoke::formats {

class HeaderReader {
 public:
  // The source must outlive the reader. Bytes at and after `limit` (clipped to the file's size) count as absent.
  HeaderReader(ByteSource& source, uint64_t limit);

  uint64_t position() const { return buffer_offset_ + used_; }
  uint64_t remaining() const { return limit_ - position(); }
  const std::string& path() const { return source_.path(); }

  // `what` names the field in messages. T is an integer or float of 1 to 8 bytes.
  template <typename T>
  Status number(T* out, const char* what) {
    static_assert(std::is_arithmetic_v<T>);
    return bytes(out, sizeof(T), what);
  }
  // A 64-bit length, then that many bytes. Requires a length of at most `bytes_max`.
  Status string(std::string* out, uint64_t bytes_max, const char* what);

  // "file: byte N: text" of the given kind, N being where the field that was read last began.
  Status failure(Code code, const std::string& text) const;

 private:
  Status bytes(void* out, size_t count, const char* what);

  ByteSource& source_;
  uint64_t limit_;
  std::vector<std::byte> buffer_;
  uint64_t buffer_offset_ = 0;  // of buffer_[0] in the file
  size_t filled_ = 0;
  size_t used_ = 0;
  uint64_t field_at_ = 0;
};

}  // namespace stoke::formats
