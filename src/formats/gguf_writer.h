// Writes GGUF (version 3, little-endian) as a stream: header first, then the tensors' bytes in table order.
//
// GgufHeader collects metadata and the tensor table; its bytes alone make test files. GgufWriter writes a file beside
// its final name and renames it when complete, so that a failure leaves nothing behind; the model is never held.
// Thread role: any, one object per thread. Ownership: the writer owns its file until finish().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/model_file.h"
#include "tensor/dtype.h"

namespace stoke::formats {

class GgufHeader {
 public:
  // Requires: alignment is a power of two. Written as general.alignment where it is not the default.
  explicit GgufHeader(uint64_t alignment = 32);

  // Keys are written in the order of the calls; a key must not be set twice.
  void set_u16(std::string_view key, uint16_t value);
  void set_u32(std::string_view key, uint32_t value);
  void set_i32(std::string_view key, int32_t value);
  void set_u64(std::string_view key, uint64_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_i32s(std::string_view key, std::span<const int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  void set_strings(std::string_view key, std::span<const std::string> values);
  // A value as a reader holds it, in the narrowest of the 32- and 64-bit types that keeps it.
  void set_value(std::string_view key, const MetaValue& value);

  // `shape` is row-major, slowest first. Requires: its last dimension is whole blocks of `type`.
  void add_tensor(std::string_view name, DType type, std::span<const int64_t> shape);
  // One of a raw type (model_file.h): bytes that are no elements.
  void add_raw(std::string_view name, const RawType& type, std::span<const int64_t> shape);

  // Everything before the first tensor's bytes, padding included.
  std::string bytes() const;
  // Bytes of each tensor without padding, in table order.
  const std::vector<uint64_t>& tensor_bytes() const { return tensor_bytes_; }
  // Bytes of the data section, padding included.
  uint64_t data_bytes() const { return data_bytes_; }
  // Rounds up to the alignment.
  uint64_t aligned(uint64_t bytes) const { return (bytes + alignment_ - 1) / alignment_ * alignment_; }

 private:
  void add_entry(std::string_view name, uint32_t ggml_id, std::span<const int64_t> shape, uint64_t bytes);
  void set_array(std::string_view key, const MetaArray& array);

  uint64_t alignment_;
  uint64_t keys_ = 0;
  std::string meta_;
  std::string table_;
  std::vector<uint64_t> tensor_bytes_;
  uint64_t data_bytes_ = 0;
};

class OutputFile;

class GgufWriter {
 public:
  // Writes the header. Fails with kNoSpace before writing where the disk lacks room for the whole file.
  static Result<std::unique_ptr<GgufWriter>> create(const std::string& path, GgufHeader header);
  // Removes the unfinished file.
  ~GgufWriter();

  // The next bytes of the data section, which may span tensors; padding after each tensor is the writer's work.
  Status append(std::span<const std::byte> bytes);
  // Puts the file in place under its name. Requires: every tensor's bytes were appended.
  Status finish();

 private:
  GgufWriter(std::unique_ptr<OutputFile> file, GgufHeader header);
  Status end_tensor();

  std::unique_ptr<OutputFile> file_;
  GgufHeader header_;
  size_t tensor_ = 0;     // the one being written
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace stoke::formats
