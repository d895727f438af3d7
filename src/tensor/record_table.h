// The records of one layer of a neuron store: what one of them holds, how many there are, and where they lie.
//
// Plain data, and the arithmetic of the layout (docs/FORMAT.md). The store's reader fills a table a layer
// (formats/neuron_store.h), the engine's plan hands them on, and the sparse FFN and its streaming read records by it:
// record i of the table is record.record_bytes bytes at offset + i * record.record_bytes of file `file`; expert e's
// neurons are [e * neurons / experts, (e + 1) * neurons / experts). Its checksum is number first_checksum + i of the
// store's resident table of record checksums, over all its bytes, padding included (sys/checksum.h).
// Thread role: any. Ownership: values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tensor/dtype.h"
#include "tensor/neuron_record.h"

namespace stoke {

struct RecordTable {
  std::string name;  // the tensor's, for messages
  NeuronRecord record;
  int layer = 0;
  int64_t neurons = 0;  // of all experts
  int64_t experts = 1;
  uint32_t file = 0;    // index into the model's files
  uint64_t offset = 0;  // of record 0; a multiple of kStoreAlignment
  int64_t first_checksum = 0;

  int64_t expert_neurons() const { return neurons / experts; }
  uint64_t bytes() const { return static_cast<uint64_t>(neurons) * record.record_bytes; }
  uint64_t offset_of(int64_t neuron) const { return offset + static_cast<uint64_t>(neuron) * record.record_bytes; }
};

// Of tables and matrices in the file: a page, so that direct reads need no superset at their beginnings.
inline constexpr uint64_t kStoreAlignment = 4096;
// Neurons that share a row of the table of scales in kCodes: the block of the source's type.
inline constexpr int64_t kCodeBlock = 32;
// Bounds what an untrusted store can claim; rows of published models take at most some tens of thousand bytes.
inline constexpr int64_t kRecordDimMax = int64_t{1} << 20;

// Types whose columns kCodes can hold: blocks of 32 with half-precision scales (and minima).
bool has_codes(DType type);
// Bytes of kCodeBlock codes of such a type: its block without scale and minimum.
size_t code_block_bytes(DType type);

// The record of these parts, one after another without gaps, and the padding. Padded to whole sectors of 512 bytes
// where that costs at most a quarter of the parts, else to 64 bytes.
// Requires: dim is whole blocks of every type that is a row here, and of kCodeBlock in kCodes; has_codes(down) there.
NeuronRecord layout_record(RecordLayout layout, DownEncoding encoding, int64_t dim, DType gate, DType up, DType down);

}  // namespace stoke
