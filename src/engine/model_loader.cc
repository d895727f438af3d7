#include "engine/model_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/config_reader.h"
#include "engine/tensor_table.h"
#include "formats/neuron_store.h"

namespace stoke::engine {
namespace {

using model::Config;
using model::DenseFfnWeights;
using model::ExpertSlices;
using model::Family;
using model::LayerWeights;
using model::MatrixSlice;
using model::MoeWeights;
using model::NormStyle;
using model::QkNorm;
using model::Role;
using model::Vector;

MatrixSlice part(const MatrixSlice& whole, int64_t begin, int64_t rows) {
  return {whole.id, {whole.rows.begin + begin, whole.rows.begin + begin + rows}};
}

Vector part(const Vector& whole, int64_t begin, int64_t count) {
  if (whole.empty()) return {};
  return Vector(whole.begin() + begin, whole.begin() + begin + count);
}

// Elements begin, begin + 2, ...
Vector every_second(const Vector& whole, size_t begin) {
  Vector out;
  for (size_t i = begin; i < whole.size(); i += 2) out.push_back(whole[i]);
  return out;
}

// The weights of one model, put together role by role.
class Assembler {
 public:
  // `records`: of a neuron store, one table a layer; empty otherwise.
  Assembler(TensorTable& table, const Family& family, Config& config, const std::vector<RecordTable>& records)
      : table_(table), family_(family), config_(config), records_(records) {}

  Status rope_tables();
  Status outer(model::Weights* weights);
  Status layer(int index, LayerWeights* out);

 private:
  Status norms(Place at, LayerWeights* out);
  Status attention(Place at, LayerWeights* out);
  Status qkv(Place at, LayerWeights* out);
  Status dense(Place at, DenseFfnWeights* out);
  Status sparse(Place at, LayerWeights* out);
  Status moe(Place at, MoeWeights* out);
  Status router(Place at, MoeWeights* out);
  Status expert_matrices(Place at, MoeWeights* out);
  Status interleaved_experts(Place at, MoeWeights* out);
  Status expert_biases(Place at, MoeWeights* out);
  Status shared(Place at, MoeWeights* out);

  TensorTable& table_;
  const Family& family_;
  Config& config_;
  const std::vector<RecordTable>& records_;
};

Status Assembler::rope_tables() {
  const int64_t half = config_.rope.n_rot / 2;
  STOKE_ASSIGN(config_.rope.freq_factors, table_.vector(Role::kRopeFreqs, {}, half, false));
  if (config_.rope.scaling != model::RopeScaling::kLongrope || !config_.rope.long_factors.empty()) return ok_status();
  STOKE_ASSIGN(config_.rope.long_factors, table_.vector(Role::kRopeLong, {}, half, true));
  STOKE_ASSIGN(config_.rope.short_factors, table_.vector(Role::kRopeShort, {}, half, true));
  return ok_status();
}

Status Assembler::outer(model::Weights* weights) {
  const Place first{};
  const Place last{.layer = config_.layers};
  STOKE_ASSIGN(const MatrixSlice embedding, table_.matrix(Role::kEmbedding, first, {config_.vocab, config_.dim}));
  weights->embedding = embedding.id;
  STOKE_ASSIGN(weights->output_norm, table_.norm(Role::kOutputNorm, last, config_.dim, true));
  weights->head = embedding;
  if (table_.has(Role::kHead, last)) {
    STOKE_ASSIGN(weights->head, table_.matrix(Role::kHead, last, {config_.vocab, config_.dim}));
  }
  return ok_status();
}

Status Assembler::layer(int index, LayerWeights* out) {
  const Place at{.layer = index};
  model::LayerConfig& how = config_.layer[static_cast<size_t>(index)];
  // Some expert models have dense layers; the file shows which.
  const bool dense_here = table_.has(Role::kDown, at) || !records_.empty();
  if (how.moe && !table_.has(Role::kRouter, at) && dense_here) how.moe = false;
  STOKE_TRY(norms(at, out));
  STOKE_TRY(attention(at, out));
  if (!records_.empty()) return sparse(at, out);
  return how.moe ? moe(at, &out->moe) : dense(at, &out->ffn);
}

Status Assembler::norms(Place at, LayerWeights* out) {
  if (family_.norms != NormStyle::kPost) {
    STOKE_ASSIGN(out->attn_norm, table_.norm(Role::kAttnNorm, at, config_.dim, true));
    STOKE_ASSIGN(out->ffn_norm, table_.norm(Role::kFfnNorm, at, config_.dim, true));
  }
  if (family_.norms != NormStyle::kPre) {
    STOKE_ASSIGN(out->attn_post_norm, table_.norm(Role::kAttnPostNorm, at, config_.dim, true));
    STOKE_ASSIGN(out->ffn_post_norm, table_.norm(Role::kFfnPostNorm, at, config_.dim, true));
  }
  return ok_status();
}

Status Assembler::attention(Place at, LayerWeights* out) {
  STOKE_TRY(qkv(at, out));
  STOKE_ASSIGN(out->o, table_.matrix(Role::kO, at, {config_.dim, config_.q_dim()}));
  STOKE_ASSIGN(out->o_bias, table_.vector(Role::kOBias, at, config_.dim, false));
  if (family_.qk_norm != QkNorm::kNone) {
    const bool wide = family_.qk_norm == QkNorm::kWidth;
    STOKE_ASSIGN(out->q_norm, table_.norm(Role::kQNorm, at, wide ? config_.q_dim() : config_.head_dim, true));
    STOKE_ASSIGN(out->k_norm, table_.norm(Role::kKNorm, at, wide ? config_.kv_dim() : config_.head_dim, true));
  }
  if (!family_.sinks) return ok_status();
  STOKE_ASSIGN(out->sinks, table_.vector(Role::kSinks, at, config_.heads, true));
  return ok_status();
}

Status Assembler::qkv(Place at, LayerWeights* out) {
  const int64_t q = config_.q_dim();
  const int64_t kv = config_.kv_dim();
  if (table_.has(Role::kQkv, at)) {
    STOKE_ASSIGN(const MatrixSlice all, table_.matrix(Role::kQkv, at, {q + 2 * kv, config_.dim}));
    STOKE_ASSIGN(const Vector bias, table_.vector(Role::kQkvBias, at, q + 2 * kv, false));
    out->q = part(all, 0, q);
    out->k = part(all, q, kv);
    out->v = part(all, q + kv, kv);
    out->q_bias = part(bias, 0, q);
    out->k_bias = part(bias, q, kv);
    out->v_bias = part(bias, q + kv, kv);
    return ok_status();
  }
  STOKE_ASSIGN(out->q, table_.matrix(Role::kQ, at, {q, config_.dim}));
  STOKE_ASSIGN(out->k, table_.matrix(Role::kK, at, {kv, config_.dim}));
  STOKE_ASSIGN(out->v, table_.matrix(Role::kV, at, {kv, config_.dim}));
  STOKE_ASSIGN(out->q_bias, table_.vector(Role::kQBias, at, q, false));
  STOKE_ASSIGN(out->k_bias, table_.vector(Role::kKBias, at, kv, false));
  STOKE_ASSIGN(out->v_bias, table_.vector(Role::kVBias, at, kv, false));
  return ok_status();
}

Status Assembler::dense(Place at, DenseFfnWeights* out) {
  const int64_t ffn = config_.ffn;
  if (table_.has(Role::kGateUp, at)) {
    STOKE_ASSIGN(const MatrixSlice both, table_.matrix(Role::kGateUp, at, {2 * ffn, config_.dim}));
    out->gate = part(both, 0, ffn);
    out->up = part(both, ffn, ffn);
  } else {
    STOKE_ASSIGN(out->gate, table_.matrix(Role::kGate, at, {ffn, config_.dim}));
    STOKE_ASSIGN(out->up, table_.matrix(Role::kUp, at, {ffn, config_.dim}));
    STOKE_ASSIGN(out->gate_bias, table_.vector(Role::kGateBias, at, ffn, false));
    STOKE_ASSIGN(out->up_bias, table_.vector(Role::kUpBias, at, ffn, false));
  }
  STOKE_ASSIGN(out->down, table_.matrix(Role::kDown, at, {config_.dim, ffn}));
  STOKE_ASSIGN(out->down_bias, table_.vector(Role::kDownBias, at, config_.dim, false));
  return ok_status();
}

// A layer of a neuron store: gates and scales are matrices, up and down are records. Their shapes agree with one
// another (formats/neuron_store.h); here they are held against the configuration.
Status Assembler::sparse(Place at, LayerWeights* out) {
  const RecordTable& records = records_[static_cast<size_t>(at.layer)];
  const bool moe = config_.layer[static_cast<size_t>(at.layer)].moe;
  const int64_t neurons = moe ? config_.moe.ffn : config_.ffn;
  const int64_t experts = moe ? config_.moe.experts : 1;
  const bool is_experts = records.name == store_tensor_name(formats::StorePart::kRecords, at.layer, true);
  if (is_experts != moe || records.experts != experts || records.expert_neurons() != neurons ||
      records.record.dim != config_.dim) {
    return Status(Code::kCorrupt,
                  fmt::format("tensor {} has {} x {} neurons of width {}, but the configuration gives {} x {} of {}",
                              records.name, records.experts, records.expert_neurons(), records.record.dim, experts,
                              neurons, config_.dim));
  }
  model::SparseFfnWeights& sparse = out->sparse;
  sparse.table = at.layer;
  sparse.neurons = neurons;
  const auto part = [&](formats::StorePart which, int64_t rows) {
    return table_.named(store_tensor_name(which, at.layer, moe), at.layer, {rows, config_.dim});
  };
  if (records.record.layout == RecordLayout::kSplit) {
    STOKE_ASSIGN(sparse.gate, part(formats::StorePart::kGate, records.neurons));
    if (moe) sparse.gates = {.id = sparse.gate.id, .first = 0, .step = neurons, .rows = neurons};
    if (moe) sparse.gate = {};
  }
  if (records.record.down_encoding == DownEncoding::kRequantized) {
    STOKE_ASSIGN(sparse.factors, table_.named_vector(store_tensor_name(formats::StorePart::kFactors, at.layer, moe),
                                                     records.experts * config_.dim));
  } else {
    STOKE_ASSIGN(sparse.scales, part(formats::StorePart::kScales, records.neurons / kCodeBlock));
    if (info(records.record.down_type).has_min) {
      STOKE_ASSIGN(sparse.mins, part(formats::StorePart::kMins, records.neurons / kCodeBlock));
    }
  }
  return moe ? router(at, &out->moe) : ok_status();
}

Status Assembler::router(Place at, MoeWeights* out) {
  const int64_t experts = config_.moe.experts;
  STOKE_ASSIGN(out->router, table_.matrix(Role::kRouter, at, {experts, config_.dim}));
  STOKE_ASSIGN(out->router_bias, table_.vector(Role::kRouterBias, at, experts, false));
  return family_.shared_expert ? shared(at, out) : ok_status();
}

Status Assembler::moe(Place at, MoeWeights* out) {
  STOKE_TRY(router(at, out));
  const bool interleaved = family_.interleaved_experts && !table_.has(Role::kExpertGate, at);
  STOKE_TRY(interleaved ? interleaved_experts(at, out) : expert_matrices(at, out));
  return expert_biases(at, out);
}

Status Assembler::expert_matrices(Place at, MoeWeights* out) {
  const int64_t experts = config_.moe.experts;
  const int64_t ffn = config_.moe.ffn;
  if (table_.has(Role::kExpertGateUp, at)) {
    STOKE_ASSIGN(const ExpertSlices both, table_.experts(Role::kExpertGateUp, at, experts, {2 * ffn, config_.dim}));
    out->gate = {.id = both.id, .first = 0, .step = 2 * ffn, .rows = ffn};
    out->up = {.id = both.id, .first = ffn, .step = 2 * ffn, .rows = ffn};
  } else {
    STOKE_ASSIGN(out->gate, table_.experts(Role::kExpertGate, at, experts, {ffn, config_.dim}));
    STOKE_ASSIGN(out->up, table_.experts(Role::kExpertUp, at, experts, {ffn, config_.dim}));
  }
  const bool stacked = table_.has(Role::kExpertDownStacked, at);
  STOKE_ASSIGN(out->down,
               table_.experts(stacked ? Role::kExpertDownStacked : Role::kExpertDown, at, experts, {config_.dim, ffn}));
  return ok_status();
}

// Rows of gate and up alternate in the file.
Status Assembler::interleaved_experts(Place at, MoeWeights* out) {
  const int64_t experts = config_.moe.experts;
  const int64_t ffn = config_.moe.ffn;
  TensorTable::Picked picked{.role = Role::kExpertGateUp,
                             .blocks = Role::kExpertGateUpBlocks,
                             .scales = Role::kExpertGateUpScales,
                             .source_rows = 2 * ffn,
                             .begin = 0,
                             .step = 2};
  STOKE_ASSIGN(out->gate, table_.picked_experts(picked, at, experts, {ffn, config_.dim}));
  picked.begin = 1;
  STOKE_ASSIGN(out->up, table_.picked_experts(picked, at, experts, {ffn, config_.dim}));
  const TensorTable::Picked down{.role = Role::kExpertDownStacked,
                                 .blocks = Role::kExpertDownBlocks,
                                 .scales = Role::kExpertDownScales,
                                 .source_rows = config_.dim};
  STOKE_ASSIGN(out->down, table_.picked_experts(down, at, experts, {config_.dim, ffn}));
  return ok_status();
}

Status Assembler::expert_biases(Place at, MoeWeights* out) {
  const int64_t experts = config_.moe.experts;
  const int64_t ffn = config_.moe.ffn;
  STOKE_ASSIGN(const Vector both, table_.vector(Role::kExpertGateUpBias, at, experts * 2 * ffn, false));
  if (!both.empty()) {
    out->gate_bias = every_second(both, 0);
    out->up_bias = every_second(both, 1);
  } else {
    STOKE_ASSIGN(out->gate_bias, table_.vector(Role::kExpertGateBias, at, experts * ffn, false));
    STOKE_ASSIGN(out->up_bias, table_.vector(Role::kExpertUpBias, at, experts * ffn, false));
  }
  STOKE_ASSIGN(out->down_bias, table_.vector(Role::kExpertDownBias, at, experts * config_.dim, false));
  return ok_status();
}

Status Assembler::shared(Place at, MoeWeights* out) {
  const int64_t ffn = config_.moe.shared_ffn;
  STOKE_ASSIGN(out->shared.gate, table_.matrix(Role::kSharedGate, at, {ffn, config_.dim}));
  STOKE_ASSIGN(out->shared.up, table_.matrix(Role::kSharedUp, at, {ffn, config_.dim}));
  STOKE_ASSIGN(out->shared.down, table_.matrix(Role::kSharedDown, at, {config_.dim, ffn}));
  STOKE_ASSIGN(out->shared_gate, table_.matrix(Role::kSharedWeight, at, {1, config_.dim}));
  return ok_status();
}

// The record tables of a neuron store, whose tensors then count as used.
Status read_records(const formats::ModelFile& file, int layers, TensorTable* table, std::vector<RecordTable>* out) {
  STOKE_ASSIGN(formats::NeuronStore store, formats::read_neuron_store(file));
  if (std::ssize(store.tables) != layers) {
    return Status(Code::kCorrupt, fmt::format("{}: has records of {} layers, but the configuration gives {}", file.path,
                                              store.tables.size(), layers));
  }
  for (const std::string_view name :
       {formats::kRecordChecksums, formats::kMatrixChecksums, formats::kSeal, formats::kFiring}) {
    table->note_used(name);
  }
  for (const RecordTable& records : store.tables) table->note_used(records.name);
  *out = std::move(store.tables);
  return ok_status();
}

// Quantising on load is for float matrices. A store's are held against checksums, which are of the bytes as they lie.
Status check_quant(const formats::ModelFile& file, DType quant, const WeightPlan& plan) {
  const char* name = info(quant).name;
  if (formats::is_neuron_store(file)) {
    return Status(Code::kInvalid,
                  fmt::format("{}: --quant {}: a neuron store keeps the types that `stoke convert` gave "
                              "it (convert has --quant, too)",
                              file.path, name));
  }
  const auto converted = [](const MatrixSpec& spec) { return spec.stored != spec.info.type; };
  if (std::ranges::any_of(plan.matrices, converted)) return ok_status();
  return Status(Code::kInvalid,
                fmt::format("{}: --quant {}: it has no F32, F16 or BF16 matrix that could become {}: leave the option "
                            "out, other types stay as stored",
                            file.path, name, name));
}

}  // namespace

uint64_t ModelPlan::record_bytes() const {
  uint64_t bytes = 0;
  for (const RecordTable& table : tables) bytes += table.bytes();
  return bytes;
}

Result<ModelPlan> plan_model(const formats::ModelFile& file, const LoaderOptions& options) {
  STOKE_ASSIGN(ModelDescription description, read_description(file, options.ffn_act));
  ModelPlan out{.family = description.family, .config = std::move(description.config)};
  TensorTable table(file, *out.family, options.quant);
  const formats::TensorEntry* embedding = table.find(Role::kEmbedding, {});
  if (embedding == nullptr) {
    return Status(Code::kCorrupt, fmt::format("{}: tensor {} is missing", file.path, table.name(Role::kEmbedding, {})));
  }
  out.config.vocab = embedding->rows();
  if (formats::is_neuron_store(file)) STOKE_TRY(read_records(file, out.config.layers, &table, &out.tables));
  Assembler assembler(table, *out.family, out.config, out.tables);
  STOKE_TRY(assembler.rope_tables());
  const Status valid = validate(out.config);
  if (!valid.ok()) return valid.with(file.path);
  STOKE_TRY(assembler.outer(&out.weights));
  out.weights.layers.resize(static_cast<size_t>(out.config.layers));
  for (int i = 0; i < out.config.layers; ++i) {
    STOKE_TRY(assembler.layer(i, &out.weights.layers[static_cast<size_t>(i)]));
  }
  STOKE_TRY(table.check_all_used(out.config.layers));
  const Status complete = validate(out.config);  // again: layers may have turned out dense
  if (!complete.ok()) return complete.with(file.path);
  out.plan = table.take_plan();
  for (const LayerWeights& layer : out.weights.layers) {
    for (const MatrixSlice& slice : {layer.sparse.scales, layer.sparse.mins}) {
      if (slice.valid()) out.plan.matrices[static_cast<size_t>(slice.id.index)].apart = true;
    }
  }
  if (options.quant) STOKE_TRY(check_quant(file, *options.quant, out.plan));
  return out;
}

}  // namespace stoke::engine
