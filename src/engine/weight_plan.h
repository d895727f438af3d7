// Which bytes of which files become which matrix: the loader's answer to "where are the weights", as plain data.
//
// Made by the loader from a ModelFile and a family's table; consumed by resident_source.h (and by streaming sources).
// The index in `matrices` is the MatrixId that the model's table of weights holds. Matrices stand in the order in which
// a forward pass first needs them (embedding, layer 0, layer 1, ..., head): loading follows it.
// Thread role: any; const once built. Ownership: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/model_file.h"
#include "model/weight_source.h"
#include "tensor/dtype.h"

namespace stoke::engine {

// Whole rows of a matrix, as they lie in a file.
struct MatrixPiece {
  formats::Extent extent;
};

// A matrix is its pieces' rows one after another (one piece mostly; several where a file keeps each expert apart).
struct MatrixSpec {
  std::string name;         // for messages
  model::MatrixInfo info;   // as held in memory: info.type is what the kernels see
  // What the file holds. Differs from info.type only for quantise-on-load, from F32, F16 or BF16.
  DType stored_type = DType::kF32;
  std::vector<MatrixPiece> pieces;
};

struct WeightPlan {
  std::vector<std::string> files;    // full paths; Extent::file indexes them
  std::vector<uint64_t> file_sizes;  // as seen when the header was read
  std::vector<MatrixSpec> matrices;
};

}  // namespace stoke::engine
