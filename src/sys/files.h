// Files: open, read whole ranges, direct reads, atomic replacement, free space.
//
// Every failure is a Status that names the file and, for reads, the offset.
// Thread role: any; reads of one File may run on many threads at once. Ownership: a File owns its descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace stoke::sys {

class File {
 public:
  File() = default;
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Reads through the page cache.
  static Result<File> open_read(const std::string& path);
  // Reads past the page cache (O_DIRECT) where the file system does that truly: alignment() says what offsets, lengths
  // and addresses must be multiples of. Falls back to buffered reads where it is refused or where a trial read differs
  // from a buffered one; then direct() is false, why_not_direct() says the reason, and nothing is read ahead.
  static Result<File> open_direct(const std::string& path);
  // Creates or empties a file for writing and reading back.
  static Result<File> create(const std::string& path);
  // Opens for writing at any offset, created empty where absent; what is there stays.
  static Result<File> open_write(const std::string& path);

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  bool direct() const { return alignment_ > 1; }
  uint32_t alignment() const { return alignment_; }  // 1 for buffered files
  const std::string& why_not_direct() const { return why_not_direct_; }

  // The length now (not as it was when opened).
  Result<uint64_t> size() const;
  // Reads exactly `bytes` at `offset`. A file that ends earlier is kCorrupt, anything else that goes wrong kIo.
  // Direct files: offset, bytes and dst are multiples of alignment(); the end of the file may cut the read short, and
  // `at_least` (<= bytes) says how much must come.
  Status pread_full(void* dst, size_t bytes, uint64_t offset) const { return pread_some(dst, bytes, bytes, offset); }
  Status pread_some(void* dst, size_t bytes, size_t at_least, uint64_t offset) const;
  // A full disk is kNoSpace.
  Status pwrite_full(const void* src, size_t bytes, uint64_t offset) const;
  Status truncate(uint64_t bytes) const;
  Status sync() const;
  // Hints to the page cache; failure is of no consequence.
  // From now on nothing is read but what is asked for: read-ahead would cache what nobody wants cached.
  void no_read_ahead() const;
  void drop_cached(uint64_t offset, uint64_t bytes) const;
  // After a read of a file that came from open_direct(): where it went through the page cache, every page that it
  // touched is dropped again. Nothing where it was direct.
  void drop_read(uint64_t offset, uint64_t bytes) const;
  void read_ahead(uint64_t offset, uint64_t bytes) const;

 private:
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  static Result<File> open_flags(const std::string& path, int flags);

  int fd_ = -1;
  uint32_t alignment_ = 1;
  std::string path_;
  std::string why_not_direct_;
};

// Whole small files. Reading stops with kInvalid above max_bytes. Works on /proc files, whose length is not known.
Result<std::string> read_file(const std::string& path, uint64_t max_bytes = uint64_t{64} << 20);
// The file appears whole or not at all: written beside, synced, renamed over. Failures name `path`.
Status write_file_atomic(const std::string& path, std::string_view text);
// A failure that begins with the name of the temporary file, told of the file that the user named.
Status told_of(const std::string& path, const std::string& temporary, const Status& status);
// Renames within one file system and syncs the folder, so that the new name survives a crash.
Status rename_durable(const std::string& from, const std::string& to);
// mkdir -p.
Status make_folders(const std::string& path);

// Bytes that this user may still write to the file system that holds `path` (or, where that is absent, its nearest
// existing parent).
Result<uint64_t> free_space(const std::string& path);

// errno as text: "no such file or directory".
std::string errno_text(int error);

}  // namespace stoke::sys
