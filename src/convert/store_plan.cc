#include "convert/store_plan.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "convert/neuron_order.h"
#include "engine/gate_mark.h"
#include "engine/tensor_table.h"
#include "formats/firing_stats.h"
#include "model/family.h"

namespace stoke::convert {
namespace {

using formats::StorePart;
using model::ExpertSlices;
using model::LayerWeights;
using model::MatrixSlice;
using model::Role;

ExpertSlices one_expert(const MatrixSlice& slice) {
  return {.id = slice.id, .first = slice.rows.begin, .step = slice.rows.size(), .rows = slice.rows.size()};
}

bool is_ffn(Role role) {
  return (role >= Role::kGate && role <= Role::kDownBias) ||
         (role >= Role::kExpertGate && role <= Role::kExpertDownScales);
}

// Tensors that stand before the first layer, or after the last.
bool is_first(Role role) {
  return role == Role::kEmbedding || role == Role::kRopeFreqs || role == Role::kRopeLong || role == Role::kRopeShort;
}
bool is_last(Role role) { return role == Role::kOutputNorm || role == Role::kHead; }

class Planner {
 public:
  Planner(StorePlan plan, const PlanOptions& options)
      : plan_(std::move(plan)), options_(options), table_(plan_.source, *plan_.model.family, std::nullopt) {}

  Result<StorePlan> make(const std::optional<formats::FiringStats>& stats);

 private:
  std::vector<engine::MatrixSpec>& matrices() { return plan_.model.plan.matrices; }
  engine::MatrixSpec& spec(model::MatrixId id) { return matrices()[static_cast<size_t>(id.index)]; }
  Status check_model() const;
  Status check_layer(size_t layer, const LayerFfn& ffn);
  Status add_layer(size_t layer);
  Result<NeuronRecord> record_of(const LayerFfn& ffn);
  Status down_type(const engine::MatrixSpec& down, DType* type) const;
  void copy_keys();
  void copy_tensors(int layer, bool (*wanted)(Role));
  void copy_tensor(const formats::TensorEntry& tensor);
  void add_ffn(size_t layer);
  Status order_neurons(const formats::FiringStats& stats);

  StorePlan plan_;
  const PlanOptions& options_;
  engine::TensorTable table_;
  std::set<std::string> copied_;
};

Status Planner::check_model() const {
  const model::Config& config = plan_.model.config;
  if (config.activation.fires()) return ok_status();
  return Status(
      Code::kUnsupported,
      fmt::format("{}: the FFN's activation is {}: a neuron store needs relu, drelu or fatrelu, whose neurons are "
                  "exactly zero unless they fire; run the model as it is (--ffn-act NAME, if the file "
                  "states no activation)",
                  plan_.source.path, model::activation_name(config.activation)));
}

Status Planner::check_layer(size_t layer, const LayerFfn& ffn) {
  const LayerWeights& weights = plan_.model.weights.layers[layer];
  const bool biased = !weights.ffn.gate_bias.empty() || !weights.ffn.up_bias.empty() ||
                      !weights.ffn.down_bias.empty() || !weights.moe.gate_bias.empty() ||
                      !weights.moe.up_bias.empty() || !weights.moe.down_bias.empty();
  if (biased) {
    return Status(Code::kUnsupported, fmt::format("{}: the FFN of layer {} has biases: a neuron store has no place for "
                                                  "them",
                                                  plan_.source.path, layer));
  }
  for (const model::MatrixId id : {ffn.gate.id, ffn.up.id, ffn.down.id}) {
    if (spec(id).layout == engine::PieceLayout::kRows) continue;
    return Status(Code::kUnsupported, fmt::format("{}: tensor {} is not stored by rows: convert a GGUF of the model",
                                                  plan_.source.path, spec(id).name));
  }
  return ok_status();
}

Status Planner::down_type(const engine::MatrixSpec& down, DType* type) const {
  const std::string& path = plan_.source.path;
  const int64_t dim = plan_.model.config.dim;
  const DType source = options_.quant.has_value() && is_float(down.stored) ? *options_.quant : down.stored;
  *type = source;
  if (options_.down.empty()) {
    if (!is_float(source))
      *type = info(source).block_bytes * 8 <= info(source).block_elems * 5 ? DType::kQ4_0 : DType::kQ8_0;
  } else {
    const DTypeInfo* named = find_dtype(options_.down);
    if (named == nullptr) {
      return Status(Code::kInvalid, fmt::format("--down {}: an element type, such as q4_0, q8_0 or f16, or codes is "
                                                "wanted",
                                                options_.down));
    }
    *type = named->type;
  }
  if (dim % info(*type).block_elems == 0) return ok_status();
  return Status(Code::kInvalid, fmt::format("{}: the width {} is not whole blocks of {}: give another --down", path,
                                            dim, info(*type).title));
}

Result<NeuronRecord> Planner::record_of(const LayerFfn& ffn) {
  const engine::MatrixSpec& down = spec(ffn.down.id);
  const DType gate = spec(ffn.gate.id).info.type;
  const DType up = spec(ffn.up.id).info.type;
  const int64_t dim = plan_.model.config.dim;
  if (options_.down == "codes") {
    if (!has_codes(down.stored) || dim % kCodeBlock != 0) {
      return Status(Code::kInvalid,
                    fmt::format("{}: tensor {} is {}, {} rows: codes need blocks of 32 with half-precision scales and "
                                "a multiple of 32 rows: give --down TYPE instead",
                                plan_.source.path, down.name, info(down.stored).title, dim));
    }
    plan_.down = fmt::format("codes of {}", info(down.stored).name);
    return layout_record(options_.layout, DownEncoding::kCodes, dim, gate, up, down.stored);
  }
  DType type{};
  STOKE_TRY(down_type(down, &type));
  plan_.down = info(type).name;
  return layout_record(options_.layout, DownEncoding::kRequantized, dim, gate, up, type);
}

// Everything but tensors and keys of the writer's own. What a split file says of its parts is no longer true.
void Planner::copy_keys() {
  formats::GgufHeader& keys = plan_.header.keys();
  const formats::ModelFile& source = plan_.source;
  for (const auto& [key, value] : source.meta) {
    if (key == "general.alignment" || key.starts_with("split.") || key.starts_with("stoke.")) continue;
    keys.set_value(key, value);
  }
  keys.set_string(formats::store_keys::kActivation, model::activation_name(plan_.model.config.activation));
  if (source.kind == "gguf") return;
  const std::pair<std::string_view, const std::string*> texts[] = {
      {formats::store_keys::kConfig, &source.config_json},
      {formats::store_keys::kTokenizer, &source.tokenizer_json_text},
      {formats::store_keys::kTokenizerConfig, &source.tokenizer_config_json},
      {formats::store_keys::kGenerationConfig, &source.generation_config_json},
      {formats::store_keys::kChatTemplate, &source.chat_template}};
  for (const auto& [key, text] : texts) {
    if (!text->empty()) keys.set_string(key, *text);
  }
}

void Planner::copy_tensor(const formats::TensorEntry& tensor) {
  if (!copied_.insert(tensor.name).second) return;  // two roles of one tensor
  for (size_t i = 0; i < matrices().size(); ++i) {
    const engine::MatrixSpec& found = matrices()[i];
    if (found.name != tensor.name) continue;
    const auto id = model::MatrixId{static_cast<int32_t>(i)};
    plan_.header.add_matrix(tensor.name, found.info.type, tensor.shape);
    plan_.steps.push_back({.kind = Step::Kind::kRows,
                           .rows = {.id = id, .first = 0, .step = found.info.rows, .rows = found.info.rows},
                           .row_count = found.info.rows});
    return;
  }
  plan_.header.add_matrix(tensor.name, tensor.type, tensor.shape);
  plan_.steps.push_back({.kind = Step::Kind::kCopy, .extent = tensor.extent});
}

// The tensors of a place that are wanted, in the order of their roles. Layer -1: those that belong to none.
void Planner::copy_tensors(int layer, bool (*wanted)(Role)) {
  for (int r = 0; r < model::kRoleCount; ++r) {
    const Role role = static_cast<Role>(r);
    if (!wanted(role)) continue;
    const formats::TensorEntry* tensor = table_.find(role, {.layer = layer});
    if (tensor != nullptr && tensor->raw_type.empty()) copy_tensor(*tensor);
  }
}

void Planner::add_ffn(size_t layer) {
  const LayerFfn& ffn = plan_.layers[layer];
  const NeuronRecord& record = ffn.record;
  const auto l = static_cast<int64_t>(layer);
  const int64_t neurons = ffn.up.rows;
  const auto shape = [&](int64_t rows) {
    return ffn.moe ? std::vector<int64_t>{ffn.experts, rows, record.dim} : std::vector<int64_t>{rows, record.dim};
  };
  if (record.layout == RecordLayout::kSplit) {
    plan_.header.add_matrix(store_tensor_name(StorePart::kGate, l, ffn.moe), record.gate_type, shape(neurons));
    plan_.steps.push_back(
        {.kind = Step::Kind::kGates, .rows = ffn.gate, .row_count = ffn.experts * neurons, .layer = layer});
  }
  if (record.down_encoding == DownEncoding::kRequantized) {
    const std::vector<int64_t> dims = ffn.moe ? std::vector<int64_t>{ffn.experts, record.dim} : std::vector{record.dim};
    plan_.header.add_matrix(store_tensor_name(StorePart::kFactors, l, ffn.moe), DType::kF32, dims);
    plan_.steps.push_back({.kind = Step::Kind::kFactors, .layer = layer});
  }
  if (record.down_encoding == DownEncoding::kCodes) {
    plan_.header.add_matrix(store_tensor_name(StorePart::kScales, l, ffn.moe), DType::kF16,
                            shape(neurons / kCodeBlock));
    plan_.steps.push_back({.kind = Step::Kind::kScales, .layer = layer});
    if (info(record.down_type).has_min) {
      plan_.header.add_matrix(store_tensor_name(StorePart::kMins, l, ffn.moe), DType::kF16,
                              shape(neurons / kCodeBlock));
      plan_.steps.push_back({.kind = Step::Kind::kMins, .layer = layer});
    }
  }
  plan_.header.add_records(record, ffn.experts * neurons, ffn.moe ? ffn.experts : 0);
  plan_.steps.push_back({.kind = Step::Kind::kRecords, .layer = layer});
}

Status Planner::add_layer(size_t layer) {
  const LayerWeights& weights = plan_.model.weights.layers[layer];
  LayerFfn ffn;
  ffn.moe = plan_.model.config.layer[layer].moe;
  if (ffn.moe) {
    ffn.gate = weights.moe.gate;
    ffn.up = weights.moe.up;
    ffn.down = weights.moe.down;
    ffn.experts = plan_.model.config.moe.experts;
  } else {
    ffn.gate = one_expert(weights.ffn.gate);
    ffn.up = one_expert(weights.ffn.up);
    ffn.down = one_expert(weights.ffn.down);
  }
  STOKE_TRY(check_layer(layer, ffn));
  // Down is quantised along the other dimension, once, and not on its way.
  engine::MatrixSpec& down = spec(ffn.down.id);
  down.info.type = down.stored;
  down.info.row_bytes = row_bytes(down.stored, down.info.cols);
  STOKE_ASSIGN(ffn.record, record_of(ffn));
  plan_.layers.push_back(ffn);
  return ok_status();
}

// Codes go by whole blocks, whose neurons share a row of scales.
Status Planner::order_neurons(const formats::FiringStats& stats) {
  STOKE_ASSIGN(const engine::GateMark mark, engine::mark_gates(plan_.source, plan_.model));
  STOKE_TRY(formats::check_firing(stats, options_.stats, mark.layers, mark.fingerprint));
  for (size_t layer = 0; layer < plan_.layers.size(); ++layer) {
    LayerFfn& ffn = plan_.layers[layer];
    const std::vector<uint16_t> rates = formats::firing_rates(stats, layer);
    const auto neurons = static_cast<size_t>(ffn.up.rows);
    const int64_t block = ffn.record.down_encoding == DownEncoding::kCodes ? kCodeBlock : 1;
    for (size_t e = 0; e < static_cast<size_t>(ffn.experts); ++e) {
      const auto fired = std::span(stats.layers[layer].fired).subspan(e * neurons, neurons);
      for (const int32_t from : hot_first_order(fired, block)) {
        ffn.order.push_back(from);
        plan_.firing.push_back(rates[e * neurons + static_cast<size_t>(from)]);
      }
    }
  }
  return ok_status();
}

Result<StorePlan> Planner::make(const std::optional<formats::FiringStats>& stats) {
  STOKE_TRY(check_model());
  const size_t layers = plan_.model.weights.layers.size();
  for (size_t layer = 0; layer < layers; ++layer) STOKE_TRY(add_layer(layer));
  if (stats.has_value()) STOKE_TRY(order_neurons(*stats));
  copy_keys();
  copy_tensors(-1, is_first);
  for (size_t layer = 0; layer < layers; ++layer) {
    copy_tensors(static_cast<int>(layer), [](Role r) { return !is_ffn(r) && !is_first(r) && !is_last(r); });
    add_ffn(layer);
  }
  copy_tensors(static_cast<int>(layers), is_last);
  plan_.header.finish();
  if (stats.has_value()) plan_.steps.push_back({.kind = Step::Kind::kFiring});
  return std::move(plan_);
}

}  // namespace

Result<StorePlan> plan_store(const std::string& path, const PlanOptions& options) {
  STOKE_ASSIGN(formats::ModelFile source, formats::open_model_file(path));
  if (formats::is_neuron_store(source)) {
    return Status(Code::kInvalid, fmt::format("{}: is a neuron store already: name the model it was made from", path));
  }
  if (!source.tokenizer_json.empty()) {
    STOKE_ASSIGN(source.tokenizer_json_text, sys::read_file(source.tokenizer_json));
  }
  STOKE_ASSIGN(engine::ModelPlan model,
               engine::plan_model(source, {.ffn_act = options.ffn_act, .quant = options.quant}));
  std::optional<formats::FiringStats> stats;
  if (!options.stats.empty()) {
    STOKE_ASSIGN(stats, formats::read_firing(options.stats));
  }
  const formats::StoreSpec spec{.layout = options.layout,
                                .down = options.down == "codes" ? DownEncoding::kCodes : DownEncoding::kRequantized,
                                .dim = model.config.dim,
                                .source = source.kind,
                                .hot_first = stats.has_value(),
                                .firing_tokens = stats.has_value() ? stats->tokens : 0};
  StorePlan plan{.source = std::move(source), .model = std::move(model), .header = formats::StoreHeader(spec)};
  Planner planner(std::move(plan), options);
  return planner.make(stats);
}

}  // namespace stoke::convert
