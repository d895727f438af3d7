// From an opened model file to what the forward pass needs: the configuration, the small vectors, and the plan of which
// bytes make up which matrix. No matrix byte is read here: a weight source does that, from the plan.
//
// Shapes of all tensors are compared with the configuration; a tensor that the family's mathematics does not know is an
// error, since leaving it out would give wrong text without a word.
// Thread role: the control thread. Ownership: values; `family` is constant data.
// Errors: kCorrupt (numbers or shapes that disagree: tensor or key and both values), kUnsupported (unknown family,
// activation, tensor or type; the known ones are listed), kIo.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/weight_plan.h"
#include "formats/model_file.h"
#include "model/config.h"
#include "model/family.h"
#include "model/weights.h"
#include "tensor/dtype.h"
#include "tensor/record_table.h"

namespace stoke::engine {

struct LoaderOptions {
  std::string ffn_act;         // --ffn-act: the activation of a file that states none; kInvalid if it contradicts one
  std::optional<DType> quant;  // --quant: float matrices become this type while loading; kInvalid where there are none
};

struct ModelPlan {
  const model::Family* family = nullptr;
  model::Config config;
  model::Weights weights;  // ids index plan.matrices
  WeightPlan plan;
  std::vector<RecordTable> tables;  // of a neuron store: LayerWeights::sparse.table is an index; otherwise empty

  uint64_t record_bytes() const;  // of all tables
};

Result<ModelPlan> plan_model(const formats::ModelFile& file, const LoaderOptions& options);

}  // namespace stoke::engine
