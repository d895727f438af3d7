// A file that appears under its name only when it is complete: written as NAME.part-PID, renamed by finish().
// Thread role: any, one object per thread. Errors: kNoSpace where the disk is full, kIo otherwise; the unfinished file
// is removed by the destructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace stoke::formats {

class OutputFile {
 public:
  // Fails with kNoSpace where the disk has less than `bytes` free; pass 0 where the size is not known.
  static Result<std::unique_ptr<OutputFile>> create(const std::string& path, uint64_t bytes);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  Status append(std::span<const std::byte> bytes);
  Status finish();

 private:
  OutputFile(std::string path, std::string part, int fd);
  Status failure(const char* action) const;

  std::string path_;
  std::string part_;
  int fd_;
};

}  // namespace stoke::formats
