#include "formats/store_writer.h"

#include <utility>

#include "base/check.h"

namespace stoke::formats {

StoreWriter::StoreWriter(std::unique_ptr<OutputFile> file, StoreHeader header)
    : file_(std::move(file)), header_(std::move(header)) {}

Result<std::unique_ptr<StoreWriter>> StoreWriter::create(const std::string& path, StoreHeader header) {
  STOKE_ASSIGN(auto file, OutputFile::create(path, header.file_bytes()));
  STOKE_TRY(file->append(std::as_bytes(std::span(header.bytes()))));
  return std::unique_ptr<StoreWriter>(new StoreWriter(std::move(file), std::move(header)));
}

Status StoreWriter::append(std::span<const std::byte> bytes) {
  CHECK(index_ < header_.tensors().size());
  const StoreHeader::Tensor& tensor = header_.tensors()[index_];
  CHECK(bytes.size() <= tensor.bytes - done_);
  CHECK(bytes.size() % tensor.unit_bytes == 0 || bytes.size() == tensor.bytes - done_);
  add_checksums(bytes, tensor.unit_bytes, tensor.records ? &checksums_.records : &checksums_.matrices);
  STOKE_TRY(file_->append(bytes));
  done_ += bytes.size();
  if (done_ < tensor.bytes) return ok_status();
  ++index_;
  done_ = 0;
  const uint64_t next = index_ < header_.tensors().size() ? header_.tensors()[index_].offset : header_.tail_offset();
  const std::string padding(next - tensor.offset - tensor.bytes, '\0');
  return file_->append(std::as_bytes(std::span(padding)));
}

Status StoreWriter::finish() {
  CHECK(index_ == header_.tensors().size());
  const std::string tail = header_.tail(checksums_);
  STOKE_TRY(file_->append(std::as_bytes(std::span(tail))));
  return file_->finish();
}

}  // namespace stoke::formats
