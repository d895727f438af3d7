// Working memory taken once: a list of buffers is laid out twice by the same code, first to count, then to hand out.
//
//   auto layout = [&](ScratchLayout& at) { x = at.take<float>(n); acts = at.take<std::byte>(m); };
//   ScratchLayout count;  layout(count);  scratch = Scratch(count.bytes());  ScratchLayout real(scratch.data());  ...
//
// Thread role: the control thread. Ownership: Scratch owns the bytes; pointers handed out are views.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "base/check.h"
#include "sys/memory.h"

namespace stoke::model {

inline constexpr size_t kScratchAlignment = 64;

class ScratchLayout {
 public:
  ScratchLayout() = default;  // counts only: take() answers null
  explicit ScratchLayout(std::byte* base) : base_(base) {}

  template <typename T>
  T* take(int64_t count) {
    std::byte* at = base_ == nullptr ? nullptr : base_ + used_;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    used_ += (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
    return reinterpret_cast<T*>(at);
  }
  size_t bytes() const { return used_; }

 private:
  std::byte* base_ = nullptr;
  size_t used_ = 0;
};

class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(size_t bytes)
      : data_(static_cast<std::byte*>(std::aligned_alloc(kScratchAlignment, bytes == 0 ? kScratchAlignment : bytes))),
        bytes_(bytes) {
    if (data_ == nullptr) throw std::bad_alloc();  // as a vector would
  }
  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  // What was written is lost, and the memory costs nothing until it is touched again.
  void discard() const { sys::discard_pages(data_.get(), bytes_); }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t bytes_ = 0;
};

}  // namespace stoke::model
