// The store while it is being written, and the journal beside it that says how far it is: OUTPUT.part, OUTPUT.journal.
//
// Work is cut into pieces, always in the same order. commit() makes the bytes of the pieces so far durable, then
// records in the journal how many they are and their checksums; whoever opens the same work again goes on after them.
// A journal of other work (another source, other options) is of no use and is begun anew. finish() renames the file.
// Until then nothing bears the final name; what is unfinished stays for the next try.
// Thread role: one thread; a lock on the file keeps other processes away. Ownership: both files.
// Errors: kNoSpace where the disk is full, kInvalid where another process writes the same store, kIo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"
#include "formats/neuron_store.h"
#include "sys/files.h"

namespace stoke::convert {

class PartFile {
 public:
  // `identity` tells one work from another. `bytes`: of the whole file.
  static Result<PartFile> open(const std::string& output, uint64_t identity, uint64_t bytes);

  // What the journal found done.
  size_t pieces_done() const { return pieces_done_; }
  // Of all pieces done; the writer adds those of its next pieces, in order.
  formats::StoreChecksums& checksums() { return checksums_; }

  Status write(uint64_t offset, std::span<const std::byte> bytes);
  // Pieces [0, pieces) are written.
  Status commit(size_t pieces);
  const std::string& path() const { return file_.path(); }
  // Forgets what is done, so that the next call begins anew: the file turned out to be damaged.
  void discard();
  // Gives the file its name and removes the journal. Requires: commit() was called after the last write.
  Status finish();

 private:
  PartFile() = default;
  Status open_locked(const std::string& path);
  void read_journal(uint64_t identity);
  Status begin(uint64_t identity);

  std::string output_;
  sys::File file_;
  sys::File journal_;
  uint64_t journal_end_ = 0;
  uint64_t uncommitted_begin_ = UINT64_MAX;  // of the file, to be dropped from the page cache once it is durable
  uint64_t uncommitted_end_ = 0;
  size_t pieces_done_ = 0;
  formats::StoreChecksums checksums_;
  size_t records_kept_ = 0;  // checksums in the journal
  size_t matrices_kept_ = 0;
};

}  // namespace stoke::convert
