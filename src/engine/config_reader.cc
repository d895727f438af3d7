#include "engine/config_reader.h"

#include <fmt/format.h>

#include <cmath>

#include "formats/neuron_store.h"

namespace stoke::engine {
namespace {

// A store says what its activation is, whatever its source was called with.
Status read_store_activation(const formats::ModelFile& file, ModelDescription* out) {
  const std::string key(formats::store_keys::kActivation);
  std::string name;
  if (!file.get(key, &name)) return ok_status();
  Result<model::NamedActivation> stated = model::activation_from_name(name);
  if (!stated.ok()) return stated.status().with(file.path + ": key " + key);
  out->config.activation = *stated;
  out->activation_key = "key " + key;
  return ok_status();
}

// The user's word counts where the file has none. Another activation than the weights were made for gives text that
// looks nearly right, so a contradiction is not for us to settle.
Status apply_ffn_act(const formats::ModelFile& file, const std::string& ffn_act, ModelDescription* out) {
  Result<model::NamedActivation> named = model::activation_from_name(ffn_act);
  if (!named.ok()) return named.status().with("--ffn-act");
  if (!out->activation_key.empty() && *named != out->config.activation) {
    return Status(Code::kInvalid,
                  fmt::format("{}: --ffn-act {} contradicts the file, whose activation is {} ({}): "
                              "leave the option out, it is for files that do not say",
                              file.path, ffn_act, model::activation_name(out->config.activation), out->activation_key));
  }
  out->config.activation = *named;
  return ok_status();
}

}  // namespace

Result<ModelDescription> read_description(const formats::ModelFile& file, const std::string& ffn_act) {
  const bool gguf = file.kind == "gguf";
  STOKE_ASSIGN(ModelDescription out, gguf ? describe_gguf(file) : describe_folder(file));
  model::Config& config = out.config;
  if (out.family->activation_fixed) out.activation_key = fmt::format("as in all of family {}", out.family->name);
  STOKE_TRY(read_store_activation(file, &out));
  if (!ffn_act.empty()) STOKE_TRY(apply_ffn_act(file, ffn_act, &out));
  if (out.family->scaled_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  return out;
}

}  // namespace stoke::engine
