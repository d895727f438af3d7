#include "formats/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace stoke::formats {
namespace {

constexpr double kMiB = 1 << 20;

// Fails where the disk under `path` lacks room. A file system that cannot say how much it has passes.
Status check_room(const std::string& path, uint64_t bytes) {
  size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct statvfs st = {};
  if (::statvfs(folder.c_str(), &st) != 0) return ok_status();
  uint64_t room = uint64_t{st.f_bavail} * st.f_frsize;
  if (bytes <= room) return ok_status();
  return Status(Code::kNoSpace, fmt::format("{}: needs {:.1f} MiB but {:.1f} MiB are free there: make room or write "
                                            "elsewhere",
                                            path, static_cast<double>(bytes) / kMiB, static_cast<double>(room) / kMiB));
}

}  // namespace

OutputFile::OutputFile(std::string path, std::string part, int fd)
    : path_(std::move(path)), part_(std::move(part)), fd_(fd) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(part_.c_str());
  }
}

Status OutputFile::failure(const char* action) const {
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    return Status(Code::kNoSpace,
                  fmt::format("{}: cannot {}: {}: make room or write elsewhere", path_, action, strerror(errno)));
  }
  return Status(Code::kIo, fmt::format("{}: cannot {}: {}", path_, action, strerror(errno)));
}

Result<std::unique_ptr<OutputFile>> OutputFile::create(const std::string& path, uint64_t bytes) {
  struct stat st = {};
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    return Status(Code::kInvalid, fmt::format("{}: exists and is not a regular file: name another output", path));
  }
  STOKE_TRY(check_room(path, bytes));
  std::string part = fmt::format("{}.part-{}", path, ::getpid());
  int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return Status(Code::kIo, fmt::format("{}: cannot create: {}", path, strerror(errno)));
  return std::unique_ptr<OutputFile>(new OutputFile(path, std::move(part), fd));
}

Status OutputFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return failure("write");
    bytes = bytes.subspan(static_cast<size_t>(wrote));
  }
  return ok_status();
}

Status OutputFile::finish() {
  // Some file systems say that they are full only when the data reaches the disk.
  if (::fsync(fd_) != 0) return failure("write");
  if (::rename(part_.c_str(), path_.c_str()) != 0) return failure("rename the finished file into place");
  int fd = std::exchange(fd_, -1);
  return ::close(fd) == 0 ? ok_status() : failure("close");
}

}  // namespace stoke::formats
