#include "sys/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "sys/direct_probe.h"
#include "sys/memory.h"

namespace stoke::sys {
namespace {

// What one pread or pwrite may carry at most; the kernel stops at 2 GiB less a page anyway.
constexpr size_t kTransferMax = size_t{1} << 30;

Code code_of(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return Code::kNotFound;
    case ENOSPC:
    case EDQUOT:
      return Code::kNoSpace;
    case ENOMEM:
      return Code::kNoMemory;
    default:
      return Code::kIo;
  }
}

Status failed(const std::string& path, const char* what, int error) {
  return Status(code_of(error), fmt::format("{}: cannot {}: {}", path, what, errno_text(error)));
}

std::string parent_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

std::string errno_text(int error) {
  std::string text = std::generic_category().message(error);
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

File::~File() {
  if (fd_ >= 0) close(fd_);
}

File::File(File&& other) noexcept { *this = std::move(other); }

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(alignment_, other.alignment_);
  std::swap(path_, other.path_);
  std::swap(why_not_direct_, other.why_not_direct_);
  return *this;
}

Result<File> File::open_flags(const std::string& path, int flags) {
  // Only a pipe without a writer waits here, and a signal that is handled wants an end to that.
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return failed(path, "open", errno);
  File file(fd, path);
  struct stat st = {};
  if (fstat(fd, &st) != 0) return failed(path, "look at", errno);
  if (S_ISDIR(st.st_mode)) return Status(Code::kInvalid, fmt::format("{}: is a folder, not a file", path));
  return file;
}

Result<File> File::open_read(const std::string& path) { return open_flags(path, O_RDONLY); }
Result<File> File::create(const std::string& path) { return open_flags(path, O_RDWR | O_CREAT | O_TRUNC); }
Result<File> File::open_write(const std::string& path) { return open_flags(path, O_RDWR | O_CREAT); }

Result<File> File::open_direct(const std::string& path) {
  STOKE_ASSIGN(File buffered, open_read(path));
  Result<File> direct = open_flags(path, O_RDONLY | O_DIRECT);
  const auto fall_back = [&](std::string why) {
    buffered.no_read_ahead();
    buffered.why_not_direct_ = std::move(why);
    return std::move(buffered);
  };
  if (!direct.ok()) return fall_back(direct.status().message());
  const DirectProbe probe = probe_direct(direct->fd(), buffered.fd());
  if (probe.alignment == 0) return fall_back(fmt::format("{}: {}", path, probe.reason));
  direct->alignment_ = probe.alignment;
  return direct;
}

Result<uint64_t> File::size() const {
  struct stat st = {};
  if (fstat(fd_, &st) != 0) return failed(path_, "look at", errno);
  return static_cast<uint64_t>(st.st_size);
}

Status File::pread_some(void* dst, size_t bytes, size_t at_least, uint64_t offset) const {
  size_t done = 0;
  while (done < at_least) {
    // After a short direct read the rest may start unaligned; the kernel then says EINVAL, which is reported as it is.
    const ssize_t got = pread(fd_, static_cast<std::byte*>(dst) + done, std::min(bytes - done, kTransferMax),
                              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return Status(code_of(errno), fmt::format("{}: cannot read {} bytes at offset {}: {}", path_, bytes - done,
                                                offset + done, errno_text(errno)));
    }
    if (got == 0) {
      return Status(Code::kCorrupt, fmt::format("{}: ends at offset {}, but {} bytes were to be read from {}; is the "
                                                "file complete?",
                                                path_, offset + done, at_least, offset));
    }
    done += static_cast<size_t>(got);
  }
  return ok_status();
}

Status File::pwrite_full(const void* src, size_t bytes, uint64_t offset) const {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t put = pwrite(fd_, static_cast<const std::byte*>(src) + done, std::min(bytes - done, kTransferMax),
                               static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      return Status(code_of(errno), fmt::format("{}: cannot write {} bytes at offset {}: {}", path_, bytes - done,
                                                offset + done, errno_text(errno)));
    }
    done += static_cast<size_t>(put);
  }
  return ok_status();
}

Status File::truncate(uint64_t bytes) const {
  if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0) return failed(path_, "change the length", errno);
  return ok_status();
}

Status File::sync() const {
  if (fsync(fd_) != 0) return failed(path_, "sync", errno);
  return ok_status();
}

void File::no_read_ahead() const { posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM); }

void File::drop_cached(uint64_t offset, uint64_t bytes) const {
  posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

void File::drop_read(uint64_t offset, uint64_t bytes) const {
  if (direct()) return;
  // Rounded outwards: the kernel keeps pages that a range covers in part.
  const uint64_t page = page_size();
  const uint64_t begin = offset / page * page;
  drop_cached(begin, (offset + bytes + page - 1) / page * page - begin);
}

void File::read_ahead(uint64_t offset, uint64_t bytes) const {
  posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

Result<std::string> read_file(const std::string& path, uint64_t max_bytes) {
  STOKE_ASSIGN(File file, File::open_read(path));
  std::string text;
  for (;;) {
    const size_t had = text.size();
    text.resize(had + (size_t{1} << 16));
    const ssize_t got = read(file.fd(), text.data() + had, text.size() - had);
    if (got < 0) return failed(path, "read", errno);  // of a pipe also EINTR: whoever sent a signal wants an end
    text.resize(had + static_cast<size_t>(got));
    if (got == 0) return text;
    if (text.size() > max_bytes) {
      return Status(Code::kInvalid, fmt::format("{}: longer than {} bytes", path, max_bytes));
    }
  }
}

Status rename_durable(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) return failed(from, fmt::format("rename to {}", to).c_str(), errno);
  const int folder = open(parent_of(to).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);  // some file systems refuse to sync folders; the rename itself is done
    close(folder);
  }
  return ok_status();
}

Status told_of(const std::string& path, const std::string& temporary, const Status& status) {
  const std::string& message = status.message();
  if (status.ok() || !message.starts_with(temporary)) return status;
  return Status(status.code(), path + message.substr(temporary.size()));
}

Status write_file_atomic(const std::string& path, std::string_view text) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  const auto write_all = [&]() -> Status {
    STOKE_ASSIGN(File file, File::create(temporary));
    STOKE_TRY(file.pwrite_full(text.data(), text.size(), 0));
    STOKE_TRY(file.sync());
    return rename_durable(temporary, path);
  };
  Status status = write_all();
  if (!status.ok()) unlink(temporary.c_str());
  return told_of(path, temporary, status);
}

Status make_folders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error && !std::filesystem::is_directory(path)) return failed(path, "create the folder", error.value());
  return ok_status();
}

Result<uint64_t> free_space(const std::string& path) {
  std::filesystem::path place(path);
  struct statvfs vfs = {};
  while (statvfs(place.empty() ? "." : place.c_str(), &vfs) != 0) {
    if (errno != ENOENT || place.empty() || place == place.parent_path()) {
      return failed(path, "find the free space", errno);
    }
    place = place.parent_path();
  }
  return static_cast<uint64_t>(vfs.f_bavail) * vfs.f_frsize;
}

}  // namespace stoke::sys
