#include "sys/residency.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "sys/memory.h"

namespace stoke::sys {
namespace {

constexpr long kCachestatNumber = 451;  // the same on every architecture; not in Debian 12's headers
struct CachestatRange {
  uint64_t offset;
  uint64_t bytes;
};
struct Cachestat {
  uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

// mincore answers "all of it" to who may not write the file, which must not be believed.
bool mincore_tells_truth(const File& file) {
  struct stat st = {};
  if (fstat(file.fd(), &st) != 0) return false;
  return geteuid() == st.st_uid || access(file.path().c_str(), W_OK) == 0;
}

std::optional<uint64_t> mincore_pages(const File& file, uint64_t begin, uint64_t bytes) {
  if (!mincore_tells_truth(file)) return std::nullopt;
  void* map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd(), static_cast<off_t>(begin));
  if (map == MAP_FAILED) return std::nullopt;
  std::vector<unsigned char> pages((bytes + page_size() - 1) / page_size());
  const bool told = mincore(map, bytes, pages.data()) == 0;
  munmap(map, bytes);
  if (!told) return std::nullopt;
  return std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; });
}

// Requires: begin is a multiple of the page size.
std::optional<uint64_t> cached_pages(const File& file, uint64_t begin, uint64_t bytes) {
  CachestatRange range = {begin, bytes};
  Cachestat stat = {};
  if (syscall(kCachestatNumber, file.fd(), &range, &stat, 0) == 0) return stat.cached;
  return mincore_pages(file, begin, bytes);
}

}  // namespace

std::optional<double> cached_share(const File& file, uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return 1.0;
  const uint64_t begin = offset / page_size() * page_size();
  const uint64_t span = offset + bytes - begin;
  const std::optional<uint64_t> pages = cached_pages(file, begin, span);
  if (!pages) return std::nullopt;
  const uint64_t all = (span + page_size() - 1) / page_size();
  return std::min(1.0, static_cast<double>(*pages) / static_cast<double>(all));
}

}  // namespace stoke::sys
