#include "sys/memory.h"

#include <fmt/format.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "sys/files.h"
#include "sys/proc_text.h"

namespace stoke::sys {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int kMadvPopulateWrite = 23;  // linux 5.14; not in Debian 12's headers for every architecture

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

Memory::~Memory() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

Result<Memory> Memory::map(size_t bytes) {
  Memory memory;
  const size_t alignment = bytes >= kHugePage ? kHugePage : page_size();
  memory.size_ = round_up(bytes == 0 ? 1 : bytes, page_size());
  memory.mapped_ = memory.size_ + (alignment - page_size());
  void* mapping =
      mmap(nullptr, memory.mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return Status(Code::kNoMemory, fmt::format("cannot reserve {} bytes of memory: {}", bytes, errno_text(errno)));
  }
  memory.mapping_ = mapping;
  const size_t address = reinterpret_cast<size_t>(mapping);
  memory.data_ = static_cast<std::byte*>(mapping) + (round_up(address, alignment) - address);
  if (bytes >= kHugePage) madvise(memory.data_, memory.size_, MADV_HUGEPAGE);
  return memory;
}

void Memory::populate(size_t offset, size_t bytes) const {
  if (bytes == 0) return;
  CHECK(offset + bytes <= size_);
  const size_t begin = offset / page_size() * page_size();
  madvise(data_ + begin, round_up(offset + bytes, page_size()) - begin, kMadvPopulateWrite);
}

namespace {

void advise_whole_pages(std::byte* data, size_t bytes, int advice) {
  const uintptr_t page = page_size();
  const auto first = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end = (first + bytes) / page * page;
  if (end > begin) madvise(data + (begin - first), end - begin, advice);
}

}  // namespace

void Memory::discard(size_t offset, size_t bytes) const {
  CHECK(offset + bytes <= size_);
  advise_whole_pages(data_ + offset, bytes, MADV_DONTNEED);
}

void trim_heap() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

void discard_pages(std::byte* data, size_t bytes) {
  advise_whole_pages(data, bytes, MADV_NOHUGEPAGE);
  advise_whole_pages(data, bytes, MADV_DONTNEED);
}

ProcessMemory process_memory() {
  const std::string text = read_text("/proc/self/status").value_or("");
  const auto number = [&](const char* key) { return find_number(text, key).value_or(0); };
  return {.rss = number("VmRSS"),
          .rss_peak = number("VmHWM"),
          .anonymous = number("RssAnon"),
          .file = number("RssFile"),
          .shared = number("RssShmem"),
          .locked = number("VmLck"),
          .swapped = number("VmSwap")};
}

MachineMemory machine_memory() {
  const std::string text = read_text("/proc/meminfo").value_or("");
  const auto number = [&](const char* key) { return find_number(text, key).value_or(0); };
  return {.total = number("MemTotal"),
          .available = number("MemAvailable"),
          .page_cache = number("Cached"),
          .swap_total = number("SwapTotal"),
          .swap_free = number("SwapFree")};
}

}  // namespace stoke::sys
