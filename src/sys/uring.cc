#include "sys/uring.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/check.h"

#if STOKE_LIBURING
#include <liburing.h>
#endif

namespace stoke::sys {

#if STOKE_LIBURING

namespace {
// What goes away by itself: a signal, no memory for requests just now, results that were not taken yet.
bool is_passing(int result) { return result == -EINTR || result == -EAGAIN || result == -EBUSY; }
}  // namespace

struct Uring::Ring {
  io_uring ring = {};
  bool open = false;
  ~Ring() {
    if (open) io_uring_queue_exit(&ring);
  }
};

Result<Uring> Uring::open(int depth) {
  auto ring = std::make_unique<Ring>();
  const int error = -io_uring_queue_init(static_cast<unsigned>(depth), &ring->ring, 0);
  if (error != 0) return Status(Code::kUnsupported, fmt::format("io_uring is refused: {}", errno_text(error)));
  ring->open = true;
  return Uring(std::move(ring));
}

void Uring::prepare_read(const File& file, std::byte* dst, uint32_t bytes, uint64_t offset, int slot) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_->ring);
  CHECK(entry != nullptr);
  io_uring_prep_read(entry, file.fd(), dst, bytes, offset);
  io_uring_sqe_set_data64(entry, static_cast<uint64_t>(slot));
}

int Uring::submit(Wait wait) {
  const int result = wait == Wait::kForOne ? io_uring_submit_and_wait(&ring_->ring, 1) : io_uring_submit(&ring_->ring);
  return is_passing(result) ? 0 : result;
}

int Uring::wait() {
  io_uring_cqe* entry = nullptr;
  const int result = io_uring_wait_cqe(&ring_->ring, &entry);
  return is_passing(result) ? 0 : result;
}

std::optional<Uring::Done> Uring::take() {
  io_uring_cqe* entry = nullptr;
  if (io_uring_peek_cqe(&ring_->ring, &entry) != 0) return std::nullopt;
  const Done done = {static_cast<int>(io_uring_cqe_get_data64(entry)), entry->res};
  io_uring_cqe_seen(&ring_->ring, entry);
  return done;
}

#else

struct Uring::Ring {};

Result<Uring> Uring::open(int) { return Status(Code::kUnsupported, "built without liburing"); }
void Uring::prepare_read(const File&, std::byte*, uint32_t, uint64_t, int) { CHECK(false); }
int Uring::submit(Wait) { return -ENOSYS; }
int Uring::wait() { return -ENOSYS; }
std::optional<Uring::Done> Uring::take() { return std::nullopt; }

#endif

Uring::Uring(std::unique_ptr<Ring> ring) : ring_(std::move(ring)) {}
Uring::Uring(Uring&&) noexcept = default;
Uring& Uring::operator=(Uring&&) noexcept = default;
Uring::~Uring() = default;

}  // namespace stoke::sys
