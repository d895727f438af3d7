#include "formats/synth_stats.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>
#include <vector>

#include "formats/model_file.h"

namespace stoke::formats {
namespace {

// Files and stores of one shape keep their gates under the same names.
Result<std::vector<Extent>> gate_rows(const ModelFile& model, const SynthShape& shape) {
  std::vector<Extent> rows;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string name = fmt::format("blk.{}.ffn_gate{}.weight", layer, shape.experts > 0 ? "_exps" : "");
    const TensorEntry* gate = model.find(name);
    if (gate == nullptr) return Status(Code::kCorrupt, fmt::format("{}: tensor {} is missing", model.path, name));
    const uint64_t bytes = row_bytes(gate->type, gate->cols());
    for (int64_t k = 0; k < kFingerprintRows; ++k) {
      const auto row = static_cast<uint64_t>(fingerprint_row(k, gate->rows()));
      rows.push_back({.file = gate->extent.file, .offset = gate->extent.offset + row * bytes, .bytes = bytes});
    }
  }
  return rows;
}

}  // namespace

LayerFiring synth_firing(const SynthPlan& plan, const SynthShape& shape, int64_t layer) {
  LayerFiring out;
  constexpr auto kTokens = static_cast<double>(kSynthFiringTokens);
  const std::vector<double> shares = plan.expert_shares(layer);
  const std::vector<float> probabilities = plan.probabilities(layer);
  for (const double share : shares) out.tokens.push_back(std::llround(share * kTokens));
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const double share = shares[i / static_cast<size_t>(shape.ffn)];
    out.fired.push_back(static_cast<uint32_t>(std::llround(share * static_cast<double>(probabilities[i]) * kTokens)));
  }
  return out;
}

Status write_synth_firing(const SynthPlan& plan, const SynthShape& shape, const std::string& model,
                          const std::string& path) {
  STOKE_ASSIGN(const ModelFile written, open_model_file(model));
  STOKE_ASSIGN(const std::vector<Extent> rows, gate_rows(written, shape));
  FiringStats stats{.model = shape.name, .tokens = kSynthFiringTokens};
  STOKE_ASSIGN(stats.fingerprint, firing_fingerprint(written, rows));
  for (int64_t layer = 0; layer < shape.layers; ++layer) stats.layers.push_back(synth_firing(plan, shape, layer));
  return write_firing(stats, path);
}

}  // namespace stoke::formats
