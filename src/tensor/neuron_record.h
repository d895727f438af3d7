// What one neuron's record in a store holds (docs/FORMAT.md): the parts of neuron i that are read together.
//
// Layout kSplit: the layer's gates are a matrix of their own, and record i = Up_i | Down_i. Layout kBundle: record i =
// Gate_i | Up_i | Down_i (paper, section 4.4). Up_i and Gate_i are rows (dim elements); Down_i is column i of Down,
// re-encoded along the model dimension so that it is contiguous.
// kRequantized: Down_i is a row of dim elements of down_type. kCodes: Down_i is the codes of column i as they were
// (dim codes of a type with blocks of 32 along the FFN), and the scales (and minima) of a block of 32 neurons lie in a
// resident table, (ffn / 32, dim) halves: value = scale[i / 32][d] * (code - offset) + min[i / 32][d]: lossless.
// Thread role: any; plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace stoke {

enum class RecordLayout : uint8_t { kSplit, kBundle };
enum class DownEncoding : uint8_t { kRequantized, kCodes };

// Neurons whose partial sums are added first: the order of summation of a sparse FFN (pipeline/sparse_ffn.h).
inline constexpr int64_t kClusterNeurons = 256;

struct NeuronRecord {
  RecordLayout layout = RecordLayout::kSplit;
  DownEncoding down_encoding = DownEncoding::kRequantized;
  int64_t dim = 0;
  DType gate_type = DType::kQ4_0;  // also of the gate matrix in kSplit
  DType up_type = DType::kQ4_0;
  DType down_type = DType::kQ4_0;
  size_t gate_offset = 0;  // kBundle only
  size_t up_offset = 0;
  size_t down_offset = 0;
  size_t down_bytes = 0;
  size_t record_bytes = 0;  // stride between records, padding included
};

}  // namespace stoke
