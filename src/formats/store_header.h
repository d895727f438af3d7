// The header of a neuron store to be written, and the checksums at its end: what every writer of stores shares.
//
// A writer sets the model's keys, adds tensors in the order of consumption, and calls finish(); then tensors() says
// where each one's bytes go. Bytes are written wherever and in whatever pieces; add_checksums() is called for them in
// the order of the file, and tail() is what comes last. The gap between tensors is zeros.
// Thread role: any, one object per thread. Ownership: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/neuron_store.h"

namespace stoke::formats {

struct StoreSpec {
  RecordLayout layout = RecordLayout::kSplit;
  DownEncoding down = DownEncoding::kRequantized;
  int64_t dim = 0;
  std::string source = "gguf";  // or "safetensors": whose names and keys the store has
  bool hot_first = false;       // neurons that fire most come first; wants firing_tokens
  int64_t firing_tokens = 0;    // over which the records' firing rates were counted; 0: they are not known
};

class StoreHeader {
 public:
  explicit StoreHeader(const StoreSpec& spec);

  // For the model's own keys; must not set any that begin with "stoke." or "general.alignment".
  GgufHeader& keys() { return header_; }
  void add_matrix(std::string_view name, DType type, std::span<const int64_t> shape);
  // Layers ascending from 0, each once. experts: 0 for a dense layer; neurons: of all experts.
  void add_records(const NeuronRecord& record, int64_t neurons, int64_t experts);
  // Adds the layers' keys, kFiring where firing_tokens says so (the last of tensors()), and the tensors of checksums.
  // Last, once.
  void finish();

  struct Tensor {
    std::string name;
    bool records = false;
    uint64_t offset = 0;  // in the file
    uint64_t bytes = 0;
    uint64_t unit_bytes = 0;  // that share a checksum
  };
  // After finish(): all but the checksums, in the order of the file.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // After finish().
  const std::string& bytes() const { return bytes_; }
  uint64_t tail_offset() const { return tail_offset_; }
  uint64_t file_bytes() const { return bytes_.size() + header_.data_bytes(); }
  // The tensors of checksums as they lie from tail_offset() to the end of the file. Requires: one checksum a unit.
  std::string tail(const StoreChecksums& checksums) const;

 private:
  StoreSpec spec_;
  GgufHeader header_;
  std::vector<Tensor> tensors_;
  std::vector<int32_t> gate_types_, up_types_, down_types_, record_bytes_;
  int64_t records_ = 0;
  int64_t matrix_units_ = 0;
  std::string bytes_;
  uint64_t tail_offset_ = 0;
};

// Appends a checksum for each unit. Requires: `bytes` begins at a unit's beginning, and ends at one's end.
void add_checksums(std::span<const std::byte> bytes, uint64_t unit_bytes, std::vector<uint32_t>* out);

}  // namespace stoke::formats
