// The tensors of one model file by the role they play in its family: finds them, checks their shapes, reads the small
// ones, and writes the weight plan for the others.
//
// Thread role: the control thread, while a model is planned. Ownership: refers to the file and family it was made with.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/weight_plan.h"
#include "formats/model_file.h"
#include "model/family.h"
#include "model/weights.h"
#include "sys/files.h"

namespace stoke::engine {

// Where in the model a tensor stands.
struct Place {
  int layer = -1;  // also the order in which a weight source should load
  int64_t expert = 0;
};

struct Dims {
  int64_t rows = 0;
  int64_t cols = 0;
};

class TensorTable {
 public:
  TensorTable(const formats::ModelFile& file, const model::Family& family, std::optional<DType> quant);

  // Null where the family or the file has none. A tensor that was asked for counts as used.
  const formats::TensorEntry* find(model::Role role, Place place);
  bool has(model::Role role, Place place) { return find(role, place) != nullptr; }
  // The name to put into messages.
  std::string name(model::Role role, Place place) const;

  // A whole matrix of the plan. Fails when it is absent or of another shape.
  Result<model::MatrixSlice> matrix(model::Role role, Place place, Dims dims);
  // The same projection of all experts, from one tensor (experts, rows, cols) or one tensor each.
  Result<model::ExpertSlices> experts(model::Role role, Place place, int64_t count, Dims dims);
  // Every second row of a transposed tensor (experts, cols, source_rows), or of MXFP4 blocks with their scales.
  struct Picked {
    model::Role role, blocks, scales;
    int64_t source_rows = 0;
    int64_t begin = 0;
    int64_t step = 1;
  };
  Result<model::ExpertSlices> picked_experts(const Picked& picked, Place place, int64_t count, Dims dims);
  // A matrix of a neuron store, which has the same name whatever the family.
  Result<model::MatrixSlice> named(const std::string& name, int layer, Dims dims);
  // Likewise a float tensor of `count` elements.
  Result<model::Vector> named_vector(const std::string& name, int64_t count);
  // Read by other means, so that it counts as used.
  void note_used(std::string_view name);
  // A float tensor of `count` elements as FP32; empty where it is absent and not required.
  Result<model::Vector> vector(model::Role role, Place place, int64_t count, bool required);
  // The reverse of what folders of some families do to norm weights is done here.
  Result<model::Vector> norm(model::Role role, Place place, int64_t count, bool required);

  // Fails naming a tensor that belongs to the text model and was never asked for.
  Status check_all_used(int layers) const;
  WeightPlan take_plan() { return std::move(plan_); }

 private:
  std::string resolve(std::string_view pattern, Place place) const;
  Status missing(model::Role role, Place place) const;
  Status wrong_shape(const formats::TensorEntry& tensor, const std::string& expected) const;
  Status check_matrix(const formats::TensorEntry& tensor, Dims dims) const;
  DType loaded_type(model::Role role, DType stored, int64_t cols) const;
  model::MatrixId add(MatrixSpec spec);
  Result<MatrixSpec> spec_of(model::Role role, Place place, const formats::TensorEntry& tensor, Dims dims) const;
  Result<model::Vector> to_vector(const formats::TensorEntry& tensor, int64_t count);
  Status read(const formats::TensorEntry& tensor, std::vector<float>* out);

  const formats::ModelFile& file_;
  const model::Family& family_;
  const bool gguf_;
  const std::optional<DType> quant_;
  std::string prefix_;  // of a folder's text model, instead of "model."
  struct Known {
    const formats::TensorEntry* tensor = nullptr;
    bool used = false;
  };
  std::unordered_map<std::string_view, Known> known_;
  std::map<uint32_t, sys::File> files_;
  WeightPlan plan_;
};

}  // namespace stoke::engine
