#include "sys/direct_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "sys/files.h"

namespace stoke::sys {
namespace {

constexpr uint32_t kAlignmentMin = 512;
constexpr uint32_t kAlignmentMax = 64 * 1024;

// Named as in linux/stat.h, which Debian 12's C library does not carry yet.
constexpr unsigned kStatxDioAlign = 0x2000;
struct StatxDio {
  uint32_t mem_align = 0;
  uint32_t offset_align = 0;
};
constexpr size_t kStatxDioPlace = 0x98;  // stx_dio_mem_align within struct statx, by the kernel's ABI

// What the kernel says (6.1 and later), or zeros.
StatxDio kernel_alignment(int fd) {
  struct statx answer = {};
  StatxDio dio;
  if (statx(fd, "", AT_EMPTY_PATH, kStatxDioAlign, &answer) != 0) return dio;
  if ((answer.stx_mask & kStatxDioAlign) == 0) return dio;
  std::memcpy(&dio, reinterpret_cast<const std::byte*>(&answer) + kStatxDioPlace, sizeof(dio));
  return dio;
}

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

ssize_t read_retrying(int fd, void* dst, size_t bytes) {
  ssize_t got = -1;
  do {
    got = pread(fd, dst, bytes, 0);
  } while (got < 0 && errno == EINTR);
  return got;
}

}  // namespace

DirectProbe probe_direct(int direct_fd, int buffered_fd) {
  const StatxDio dio = kernel_alignment(direct_fd);
  std::vector<uint32_t> candidates = {kAlignmentMin, 4096};
  if (dio.offset_align != 0) candidates = {std::max({dio.mem_align, dio.offset_align, kAlignmentMin})};
  int error = EINVAL;
  for (const uint32_t alignment : candidates) {
    if (alignment > kAlignmentMax) continue;
    std::unique_ptr<void, FreeDeleter> block(std::aligned_alloc(alignment, alignment));
    if (block == nullptr) return {0, "out of memory"};
    const ssize_t got = read_retrying(direct_fd, block.get(), alignment);
    if (got < 0) {
      error = errno;
      continue;
    }
    std::vector<std::byte> plain(alignment);
    const ssize_t plain_got = read_retrying(buffered_fd, plain.data(), plain.size());
    if (plain_got != got || std::memcmp(block.get(), plain.data(), static_cast<size_t>(got)) != 0) {
      return {0, "a direct read brought other bytes than a buffered one"};
    }
    return {alignment, ""};
  }
  return {0, "direct reads are refused: " + errno_text(error)};
}

}  // namespace stoke::sys
