// Random-access bytes that the format readers parse: a file on disk, or bytes in memory (tests and fuzzers).
//
// FileOpener is the only way a reader reaches another file (the parts of a split GGUF, the shards of a folder), so a
// whole model can be parsed in memory. Nothing is mapped: a file that shrinks while it is read gives a Status.
// Thread role: any, one object per thread. Ownership: a ByteSource owns its descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace stoke::formats {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual const std::string& path() const = 0;
  virtual uint64_t size() const = 0;
  // Fills `out` from `offset`. Fails with kCorrupt when the file ends first, kIo when the system refuses.
  virtual Status read(uint64_t offset, std::span<std::byte> out) = 0;
};

class FileOpener {
 public:
  virtual ~FileOpener() = default;
  // kNotFound where there is no such file; kInvalid where it is not a regular file.
  virtual Result<std::unique_ptr<ByteSource>> open(const std::string& path) const = 0;
};

// Files of the machine.
class DiskFiles final : public FileOpener {
 public:
  Result<std::unique_ptr<ByteSource>> open(const std::string& path) const override;
};

// Files held in memory, by path. The map must outlive the sources it opened.
class MemoryFiles final : public FileOpener {
 public:
  void add(std::string path, std::string bytes) { files_[std::move(path)] = std::move(bytes); }
  Result<std::unique_ptr<ByteSource>> open(const std::string& path) const override;

 private:
  std::map<std::string, std::string> files_;
};

// The whole text of a file. Fails with kInvalid where it is longer than `bytes_max`.
Result<std::string> read_text(const FileOpener& files, const std::string& path, uint64_t bytes_max);

// Text out of a file as an error message may show it: quoted, control and non-ASCII bytes as \xNN, cut at 80 bytes.
std::string shown(std::string_view text);

}  // namespace stoke::formats
