// What the sparse FFN is told about one layer's records: where they lie on flash, and which of them memory holds.
//
// Thread role: any; plain data, const while in use. Ownership: files, checksums, scales and hot bytes are the caller's
// and outlive the FFN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "sys/files.h"
#include "tensor/record_table.h"

namespace stoke::pipeline {

struct NeuronTable {
  RecordTable records;
  const sys::File* file = nullptr;      // may be null where every neuron is hot
  int64_t first_unit = 0;               // neuron i is unit first_unit + i of the cache
  std::span<const uint32_t> checksums;  // (records.neurons); empty: not checked
  const uint16_t* scales = nullptr;     // kCodes: (neurons / kCodeBlock, dim) halves
  const uint16_t* mins = nullptr;       // kCodes of types with a minimum: likewise
  // The first hot_count neurons of every expert (dense layers: of the layer) lie here, expert after expert, each
  // record_bytes long.
  const std::byte* hot = nullptr;
  int64_t hot_count = 0;

  int64_t expert_neurons() const { return records.expert_neurons(); }
  size_t record_bytes() const { return records.record.record_bytes; }
  bool all_hot() const { return hot_count == expert_neurons(); }
  // Null where the neuron is not hot.
  const std::byte* hot_record(int64_t neuron) const {
    const int64_t expert = neuron / expert_neurons();
    const int64_t at = neuron % expert_neurons();
    if (at >= hot_count) return nullptr;
    return hot + static_cast<size_t>(expert * hot_count + at) * record_bytes();
  }
  // Whether these bytes have the neuron's checksum, as far as it is known.
  bool intact(int64_t neuron, const std::byte* record) const;
};

// One line for a record that could not be had: file, layer, neuron, offset and what happened. error: of the read
// (io/reader.h), 0 where its checksum does not match; `ends` and `failed` are the words for the other two.
Status record_failure(const NeuronTable& table, int64_t neuron, int error, const char* ends = "the file ends before it",
                      const char* failed = "the read failed, twice");

}  // namespace stoke::pipeline
