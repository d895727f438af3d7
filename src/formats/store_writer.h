// Writes a neuron store from front to back: for who has the bytes in that order and needs no resuming (`stoke synth`).
//
// The file appears under its name when it is complete (output_file.h). Thread role: any, one object per thread.
// Ownership: the writer owns its file until finish(). Errors: kNoSpace where the disk is full, kIo.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "formats/output_file.h"
#include "formats/store_header.h"

namespace stoke::formats {

class StoreWriter {
 public:
  // Requires: header.finish() was called.
  static Result<std::unique_ptr<StoreWriter>> create(const std::string& path, StoreHeader header);

  // The next bytes of the tensors; padding between them is the writer's work. Requires: whole units of the tensor that
  // is being written (16 rows, or records), or all that is left of it; never beyond its end.
  Status append(std::span<const std::byte> bytes);
  // What append() goes on with: of tensors()[index()], from byte done() on.
  size_t index() const { return index_; }
  uint64_t done() const { return done_; }
  // Writes the checksums and puts the file in place. Requires: every tensor's bytes were appended.
  Status finish();

 private:
  StoreWriter(std::unique_ptr<OutputFile> file, StoreHeader header);

  std::unique_ptr<OutputFile> file_;
  StoreHeader header_;
  StoreChecksums checksums_;
  size_t index_ = 0;
  uint64_t done_ = 0;
};

}  // namespace stoke::formats
