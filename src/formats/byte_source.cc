#include "formats/byte_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace stoke::formats {
namespace {

Status ends_early(const std::string& path, uint64_t offset, size_t wanted, uint64_t size) {
  return Status(Code::kCorrupt, fmt::format("{}: byte {}: {} bytes wanted but the file has {} in all: it is cut short; "
                                            "fetch it again",
                                            path, offset, wanted, size));
}

class DiskSource final : public ByteSource {
 public:
  DiskSource(std::string path, int fd, uint64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}
  ~DiskSource() override { ::close(fd_); }
  DiskSource(const DiskSource&) = delete;
  DiskSource& operator=(const DiskSource&) = delete;

  const std::string& path() const override { return path_; }
  uint64_t size() const override { return size_; }

  Status read(uint64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      ssize_t got = ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return Status(Code::kIo, fmt::format("{}: byte {}: cannot read: {}", path_, offset + done, strerror(errno)));
      }
      if (got == 0) return ends_early(path_, offset, out.size(), size_);
      done += static_cast<size_t>(got);
    }
    // Large tables are read once and kept by who reads them.
    constexpr size_t kLarge = size_t{1} << 20;
    if (out.size() >= kLarge)
      ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(out.size()), POSIX_FADV_DONTNEED);
    return ok_status();
  }

 private:
  std::string path_;
  int fd_;
  uint64_t size_;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(std::string path, std::string_view bytes) : path_(std::move(path)), bytes_(bytes) {}

  const std::string& path() const override { return path_; }
  uint64_t size() const override { return bytes_.size(); }

  Status read(uint64_t offset, std::span<std::byte> out) override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return ends_early(path_, offset, out.size(), bytes_.size());
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return ok_status();
  }

 private:
  std::string path_;
  std::string_view bytes_;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> DiskFiles::open(const std::string& path) const {
  // Without O_NONBLOCK the open of a FIFO would wait for a writer.
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    Code code = errno == ENOENT || errno == ENOTDIR ? Code::kNotFound : Code::kIo;
    return Status(code, fmt::format("{}: cannot open: {}", path, strerror(errno)));
  }
  struct stat st = {};
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    return Status(Code::kInvalid, fmt::format("{}: not a regular file", path));
  }
  // Read-ahead would cache the weights that lie behind the metadata.
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  return std::unique_ptr<ByteSource>(std::make_unique<DiskSource>(path, fd, static_cast<uint64_t>(st.st_size)));
}

Result<std::unique_ptr<ByteSource>> MemoryFiles::open(const std::string& path) const {
  auto it = files_.find(path);
  if (it == files_.end()) return Status(Code::kNotFound, fmt::format("{}: cannot open: no such file", path));
  return std::unique_ptr<ByteSource>(std::make_unique<MemorySource>(path, it->second));
}

Result<std::string> read_text(const FileOpener& files, const std::string& path, uint64_t bytes_max) {
  STOKE_ASSIGN(auto source, files.open(path));
  if (source->size() > bytes_max) {
    return Status(Code::kInvalid,
                  fmt::format("{}: {} bytes long, more than the {} such a file may have: is it what its name says?",
                              path, source->size(), bytes_max));
  }
  std::string text(source->size(), '\0');
  STOKE_TRY(source->read(0, std::as_writable_bytes(std::span(text))));
  return text;
}

std::string shown(std::string_view text) {
  constexpr size_t kShownMax = 80;
  std::string out = "'";
  for (char c : text.substr(0, kShownMax)) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  out += text.size() > kShownMax ? "...'" : "'";
  return out;
}

}  // namespace stoke::formats
