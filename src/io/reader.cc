#include "io/reader.h"

#include <fmt/format.h>

#include "io/thread_reader.h"
#include "io/uring_reader.h"

namespace stoke::io {

Status read_failure(const Read& read, const Done& done) {
  const std::string path = read.file != nullptr ? read.file->path() : "simulated file";
  if (done.error == 0) return ok_status();
  if (done.error < 0) {
    return Status(Code::kCorrupt,
                  fmt::format("{}: ends at offset {}, but {} bytes were to be read from {}; is the file "
                              "complete?",
                              path, read.offset + done.bytes, read.at_least, read.offset));
  }
  return Status(Code::kIo, fmt::format("{}: cannot read {} bytes at offset {}: {}", path, read.bytes, read.offset,
                                       sys::errno_text(done.error)));
}

Result<std::unique_ptr<Reader>> open_reader(const ReaderOptions& options, std::string* why) {
  using Backend = ReaderOptions::Backend;
  std::string said;
  std::unique_ptr<Reader> reader;
  if (options.backend != Backend::kThreads) {
    Result<std::unique_ptr<UringReader>> uring = UringReader::open(options.depth);
    if (!uring.ok() && options.backend == Backend::kUring) return uring.status();
    said = uring.ok() ? "io_uring" : fmt::format("threads: {}", uring.status().message());
    if (uring.ok()) reader = std::move(uring).value();
  }
  if (reader == nullptr) {
    STOKE_ASSIGN(reader, ThreadReader::open(options.depth));
    if (said.empty()) said = "threads: asked for";
  }
  if (why != nullptr) *why = said;
  return reader;
}

}  // namespace stoke::io
