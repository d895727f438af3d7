// What a store will hold and where each part of it comes from: the plan that `stoke convert` carries out.
//
// Thread role: made by one thread, const afterwards. Ownership: values.
// Errors: kUnsupported for models that cannot become a store (activation, biases, types), kInvalid for options that
// do not fit the model; as the loader's otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/model_loader.h"
#include "formats/model_file.h"
#include "formats/store_header.h"
#include "model/weights.h"
#include "tensor/record_table.h"

namespace stoke::convert {

struct PlanOptions {
  RecordLayout layout = RecordLayout::kSplit;
  std::string
      down;  // a type's name, "codes", or empty: q4_0 where the source's is of up to 4 bits, else q8_0; floats stay
  std::optional<DType> quant;  // float matrices of the source become this type
  std::string ffn_act;         // the activation, of a file that states none
  std::string stats;           // firing statistics of the model, by which hot neurons come first; empty: none
};

// The FFN of one layer in the source. A dense layer is one expert.
struct LayerFfn {
  model::ExpertSlices gate, up, down;
  int64_t experts = 1;
  bool moe = false;
  NeuronRecord record;
  // (experts, neurons): the source's neuron, of the same expert, that each place takes; empty: the source's order.
  std::vector<int32_t> order;

  int32_t source_of(int64_t expert, int64_t place) const {
    return order.empty() ? static_cast<int32_t>(place) : order[static_cast<size_t>(expert * up.rows + place)];
  }
};

// One tensor of the store.
struct Step {
  enum class Kind : uint8_t {
    kCopy,     // extent's bytes, in units of the tensor's
    kRows,     // rows of a matrix of the plan, all experts' in turn
    kGates,    // the same, of a layer's gate: in the layer's order
    kRecords,  // of a layer
    kScales,   // of a layer, kCodes
    kMins,
    kFactors,  // of a layer, kRequantized
    kFiring,   // of all records
  };
  Kind kind = Kind::kCopy;
  formats::Extent extent;    // kCopy
  model::ExpertSlices rows;  // kRows, kGates
  int64_t row_count = 0;
  size_t layer = 0;  // kGates and the others
};

struct StorePlan {
  formats::ModelFile source;
  engine::ModelPlan model;
  std::vector<LayerFfn> layers;
  std::vector<Step> steps;  // one for each of header.tensors()
  formats::StoreHeader header;
  std::vector<uint16_t> firing;  // of all records, as halves; empty without statistics
  std::string down;              // what became of Down, in words: "q8_0", "codes of q8_0"
};

Result<StorePlan> plan_store(const std::string& path, const PlanOptions& options);

}  // namespace stoke::convert
