#include "convert/part_file.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "sys/checksum.h"

namespace stoke::convert {
namespace {

constexpr uint64_t kMagic = 0x316c6e726a6b7473;  // "stkjrnl1"
constexpr uint64_t kJournalBytesMax = uint64_t{4} << 30;

// The head of an entry; the checksums follow, then the entry's own (64 bits).
struct Entry {
  uint64_t pieces = 0;
  uint64_t records = 0;  // checksums of records that are new in this entry
  uint64_t matrices = 0;
};

template <typename T>
void put(std::string* out, const T& value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
bool take(std::string_view* from, T* value) {
  if (from->size() < sizeof(T)) return false;
  std::memcpy(value, from->data(), sizeof(T));
  from->remove_prefix(sizeof(T));
  return true;
}

bool take_numbers(std::string_view* from, uint64_t count, std::vector<uint32_t>* out) {
  if (count > from->size() / sizeof(uint32_t)) return false;
  const size_t had = out->size();
  out->resize(had + count);
  if (count > 0) std::memcpy(out->data() + had, from->data(), count * sizeof(uint32_t));
  from->remove_prefix(count * sizeof(uint32_t));
  return true;
}

void put_numbers(std::string* out, std::span<const uint32_t> numbers) {
  out->append(reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
}

}  // namespace

// Between our opening and locking it, who wrote the file may have finished and renamed it: then we hold the finished
// store, which is not ours to write, and open anew.
Status PartFile::open_locked(const std::string& path) {
  for (;;) {
    STOKE_ASSIGN(file_, sys::File::open_write(path));
    if (::flock(file_.fd(), LOCK_EX | LOCK_NB) != 0) {
      return Status(Code::kInvalid,
                    fmt::format("{}: another process is writing it: wait for it, or name another output", path));
    }
    struct stat held = {};
    struct stat named = {};
    if (::fstat(file_.fd(), &held) != 0) return Status(Code::kIo, fmt::format("{}: cannot look at it", path));
    if (::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev) break;
  }
  return ok_status();
}

// Whole entries count; a torn one at the end, and what came after it, is as if it had not been written.
void PartFile::read_journal(uint64_t identity) {
  auto text = sys::read_file(journal_.path(), kJournalBytesMax);
  if (!text.ok()) return;
  std::string_view rest = *text;
  uint64_t magic = 0;
  uint64_t found = 0;
  if (!take(&rest, &magic) || !take(&rest, &found) || magic != kMagic || found != identity) return;
  journal_end_ = text->size() - rest.size();
  for (;;) {
    const std::string_view whole = rest;
    Entry entry;
    uint64_t checksum = 0;
    formats::StoreChecksums added;
    const bool complete = take(&rest, &entry) && take_numbers(&rest, entry.records, &added.records) &&
                          take_numbers(&rest, entry.matrices, &added.matrices);
    const size_t bytes = whole.size() - rest.size();
    if (!complete || !take(&rest, &checksum) || checksum != sys::checksum64(whole.data(), bytes)) return;
    pieces_done_ = entry.pieces;
    checksums_.records.insert(checksums_.records.end(), added.records.begin(), added.records.end());
    checksums_.matrices.insert(checksums_.matrices.end(), added.matrices.begin(), added.matrices.end());
    records_kept_ = checksums_.records.size();
    matrices_kept_ = checksums_.matrices.size();
    journal_end_ = text->size() - rest.size();
  }
}

Status PartFile::begin(uint64_t identity) {
  STOKE_TRY(journal_.truncate(0));
  STOKE_TRY(file_.truncate(0));
  std::string head;
  put(&head, kMagic);
  put(&head, identity);
  STOKE_TRY(journal_.pwrite_full(head.data(), head.size(), 0));
  journal_end_ = head.size();
  return ok_status();
}

Result<PartFile> PartFile::open(const std::string& output, uint64_t identity, uint64_t bytes) {
  PartFile part;
  part.output_ = output;
  STOKE_TRY(sys::told_of(output, output + ".part", part.open_locked(output + ".part")));
  STOKE_ASSIGN(part.journal_, sys::File::open_write(output + ".journal"));
  part.read_journal(identity);
  STOKE_ASSIGN(const uint64_t size, part.file_.size());
  if (part.pieces_done_ > 0 && size != bytes) {  // the file that the journal spoke of is gone
    part.pieces_done_ = part.records_kept_ = part.matrices_kept_ = 0;
    part.checksums_ = {};
  }
  if (part.pieces_done_ == 0) {
    STOKE_TRY(part.begin(identity));
    STOKE_TRY(part.file_.truncate(bytes));  // gaps between tensors are zeros
  }
  return part;
}

Status PartFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  uncommitted_begin_ = std::min(uncommitted_begin_, offset);
  uncommitted_end_ = std::max(uncommitted_end_, offset + bytes.size());
  return file_.pwrite_full(bytes.data(), bytes.size(), offset);
}

Status PartFile::commit(size_t pieces) {
  STOKE_TRY(file_.sync());
  if (uncommitted_begin_ < uncommitted_end_) {
    file_.drop_cached(uncommitted_begin_, uncommitted_end_ - uncommitted_begin_);
    uncommitted_begin_ = UINT64_MAX;
    uncommitted_end_ = 0;
  }
  const auto records = std::span(checksums_.records).subspan(records_kept_);
  const auto matrices = std::span(checksums_.matrices).subspan(matrices_kept_);
  std::string entry;
  put(&entry, Entry{.pieces = pieces, .records = records.size(), .matrices = matrices.size()});
  put_numbers(&entry, records);
  put_numbers(&entry, matrices);
  put(&entry, sys::checksum64(entry.data(), entry.size()));
  STOKE_TRY(journal_.pwrite_full(entry.data(), entry.size(), journal_end_));
  STOKE_TRY(journal_.sync());
  journal_end_ += entry.size();
  records_kept_ = checksums_.records.size();
  matrices_kept_ = checksums_.matrices.size();
  pieces_done_ = pieces;
  return ok_status();
}

void PartFile::discard() { ::unlink(journal_.path().c_str()); }

Status PartFile::finish() {
  STOKE_TRY(sys::rename_durable(file_.path(), output_));
  ::unlink(journal_.path().c_str());
  return ok_status();
}

}  // namespace stoke::convert
