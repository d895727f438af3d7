#include "engine/config_reader.h"

#include <fmt/format.h>

#include <cmath>

namespace stoke::engine {

Result<ModelDescription> read_description(const formats::ModelFile& file, const std::string& ffn_act) {
  const bool gguf = file.kind == "gguf";
  STOKE_ASSIGN(ModelDescription out, gguf ? describe_gguf(file) : describe_folder(file));
  model::Config& config = out.config;
  if (!ffn_act.empty()) {
    Result<model::Activation> named = model::activation_from_name(ffn_act);
    if (!named.ok()) return named.status().with("--ffn-act");
    config.activation = *named;
  }
  if (out.family->scaled_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  return out;
}

}  // namespace stoke::engine
