// GGUF metadata (the "<arch>.*" keys) to model::Config.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/config_reader.h"

namespace stoke::engine {
namespace {

using formats::MetaArray;
using formats::ModelFile;
using model::Config;
using model::Family;
using model::RopeConfig;
using model::RopeScaling;

// Keys of one architecture. A required key that is absent is remembered; failure() tells of the first.
class Keys {
 public:
  Keys(const ModelFile& file, std::string arch) : file_(file), arch_(std::move(arch)) {}

  std::string full(const char* key) const { return arch_ + "." + key; }
  bool has(const char* key) const { return file_.meta.find(full(key)) != file_.meta.end(); }

  int64_t integer(const char* key, int64_t absent) const {
    int64_t value = absent;
    file_.get(full(key), &value);
    return value;
  }
  int64_t need_integer(const char* key) {
    int64_t value = 0;
    if (file_.get(full(key), &value)) return value;
    if (uniform(key, &value)) return value;
    note(key);
    return 0;
  }
  double real(const char* key, double absent) const {
    double value = absent;
    file_.get(full(key), &value);
    return value;
  }
  bool flag(const char* key, bool absent) const {
    bool value = absent;
    file_.get(full(key), &value);
    return value;
  }
  std::string text(const char* key) const {
    std::string value;
    file_.get(full(key), &value);
    return value;
  }
  const MetaArray* array(const char* key) const { return file_.array(full(key)); }

  const Status& failure() const { return failure_; }

 private:
  // Some files give one number a layer; stoke wants them equal.
  bool uniform(const char* key, int64_t* value) {
    const MetaArray* all = file_.array(full(key));
    const auto* numbers = all == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(all);
    if (numbers == nullptr || numbers->empty()) return false;
    *value = numbers->front();
    for (int64_t n : *numbers) {
      if (n != *value && failure_.ok()) {
        failure_ = Status(Code::kUnsupported,
                          fmt::format("{}: key {} differs between layers ({} and {}); stoke wants layers of one shape",
                                      file_.path, full(key), *value, n));
      }
    }
    return true;
  }
  void note(const char* key) {
    if (!failure_.ok()) return;
    failure_ = Status(Code::kCorrupt, fmt::format("{}: key {} is missing or not a number", file_.path, full(key)));
  }

  const ModelFile& file_;
  std::string arch_;
  Status failure_;
};

Status read_scaling(const ModelFile& file, const Keys& keys, RopeConfig* rope) {
  const std::string type = keys.text("rope.scaling.type");
  rope->factor = keys.real("rope.scaling.factor", keys.real("rope.scale_linear", 1.0));
  rope->original_context = keys.integer("rope.scaling.original_context_length", keys.integer("context_length", 0));
  if (rope->factor == 0) rope->factor = 1;
  rope->beta_fast = keys.real("rope.scaling.yarn_beta_fast", 32);
  rope->beta_slow = keys.real("rope.scaling.yarn_beta_slow", 1);
  rope->attention_factor = keys.real("rope.scaling.attn_factor", 1.0);
  if (type == "yarn") {
    rope->scaling = RopeScaling::kYarn;
    if (rope->factor > 1) rope->attention_factor *= 1 + 0.1 * std::log(rope->factor);
  } else if (type == "longrope") {
    rope->scaling = RopeScaling::kLongrope;
  } else if (type == "linear" || (type.empty() && rope->factor != 1)) {
    rope->scaling = RopeScaling::kLinear;
  } else if (!type.empty() && type != "none") {
    return Status(Code::kUnsupported, fmt::format("{}: rope scaling \"{}\" ({}); known: none, linear, yarn, longrope",
                                                  file.path, type, keys.full("rope.scaling.type")));
  }
  return ok_status();
}

Status read_rope(const ModelFile& file, const Keys& keys, const Family& family, Config* config) {
  RopeConfig& rope = config->rope;
  rope.theta = keys.real("rope.freq_base", 10000);
  rope.n_rot = narrow(keys.integer("rope.dimension_count", config->head_dim));
  rope.neox = family.gguf_neox;
  STOKE_TRY(read_scaling(file, keys, &rope));
  // Phi-3's long-context files carry factor tables and no scaling type.
  if (rope.scaling == RopeScaling::kNone && file.find("rope_factors_long.weight") != nullptr) {
    rope.scaling = RopeScaling::kLongrope;
  }
  rope.truncate = family.yarn_truncate;
  if (family.local_rope) {  // never scaled
    config->local_rope = {.theta = keys.real("rope.freq_base_swa", 10000), .n_rot = rope.n_rot, .neox = rope.neox};
  }
  return ok_status();
}

void read_layers(const Keys& keys, const Family& family, Config* config) {
  const int64_t window = keys.integer("attention.sliding_window", family.gguf_window);
  const int64_t period = keys.integer("attention.sliding_window_pattern", family.window_period);
  const MetaArray* pattern = keys.array("attention.sliding_window_pattern");
  const auto* flags = pattern == nullptr ? nullptr : std::get_if<std::vector<bool>>(pattern);
  for (int i = 0; i < config->layers; ++i) {
    model::LayerConfig layer;
    const bool slides = flags != nullptr && static_cast<size_t>(i) < flags->size()
                            ? (*flags)[static_cast<size_t>(i)]
                            : period <= 0 || i % period < period - 1;
    layer.window = slides ? window : 0;
    layer.local_rope = slides && config->local_rope.n_rot > 0;
    layer.rope = family.rope_period == 0 || (i + 1) % family.rope_period != 0;
    layer.moe = config->moe.experts > 0;
    config->layer.push_back(layer);
  }
}

Status read_moe(const ModelFile& file, Keys& keys, const Family& family, Config* config) {
  config->moe.experts = narrow(keys.integer("expert_count", 0));
  if (config->moe.experts == 0) {
    if (!family.moe) return ok_status();
    return Status(Code::kCorrupt, fmt::format("{}: key {} is missing or 0", file.path, keys.full("expert_count")));
  }
  if (!family.moe && !family.moe_optional) {
    return Status(Code::kUnsupported, fmt::format("{}: key {} is {}, but family {} has no experts", file.path,
                                                  keys.full("expert_count"), config->moe.experts, family.name));
  }
  model::MoeConfig& moe = config->moe;
  moe.used = narrow(keys.need_integer("expert_used_count"));
  const int64_t per_expert = family.shared_expert && moe.used > 0 ? config->ffn / moe.used : config->ffn;
  moe.ffn = keys.integer("expert_feed_forward_length", per_expert);
  if (family.shared_expert) moe.shared_ffn = keys.integer("expert_shared_feed_forward_length", config->ffn);
  moe.softmax_first = family.softmax_first;
  moe.normalize = keys.flag("expert_weights_norm", family.normalize);
  const int64_t gating = keys.integer("expert_gating_func", 0);
  if (gating == 2) {
    return Status(Code::kUnsupported, fmt::format("{}: {} is {} (sigmoid); stoke knows softmax routers", file.path,
                                                  keys.full("expert_gating_func"), gating));
  }
  return ok_status();
}

float attention_scale(const Keys& keys, const Family& family, const Config& config) {
  const auto stored = static_cast<float>(keys.real("attention.scale", 0));
  if (stored > 0) return stored;
  const int64_t width = config.layers == family.wide_scale_layers ? config.dim / config.heads : config.head_dim;
  return 1.0f / std::sqrt(static_cast<float>(width));
}

}  // namespace

Result<ModelDescription> describe_gguf(const ModelFile& file) {
  std::string arch;
  if (!file.get("general.architecture", &arch)) {
    return Status(Code::kCorrupt, fmt::format("{}: key general.architecture is missing", file.path));
  }
  const Family* family = model::find_gguf_family(arch);
  if (family == nullptr) {
    return Status(Code::kUnsupported, fmt::format("{}: family \"{}\" is not known to stoke; known: {}", file.path, arch,
                                                  model::known_families()));
  }
  Keys keys(file, arch);
  ModelDescription out{.family = family};
  Config& c = out.config;
  c.family = family->name;
  c.layers = narrow(keys.need_integer("block_count"));
  c.dim = keys.need_integer("embedding_length");
  c.heads = narrow(keys.need_integer("attention.head_count"));
  c.kv_heads = c.heads;
  if (keys.has("attention.head_count_kv")) c.kv_heads = narrow(keys.need_integer("attention.head_count_kv"));
  c.head_dim = narrow(keys.integer("attention.key_length", c.heads > 0 ? c.dim / c.heads : 0));
  c.ffn = family->moe ? keys.integer("feed_forward_length", 0) : keys.need_integer("feed_forward_length");
  c.context = keys.need_integer("context_length");
  STOKE_TRY(keys.failure());
  const int64_t value_length = keys.integer("attention.value_length", c.head_dim);
  if (value_length != c.head_dim) {
    return Status(Code::kUnsupported, fmt::format("{}: {} is {} but {} is {}; stoke wants them equal", file.path,
                                                  keys.full("attention.value_length"), value_length,
                                                  keys.full("attention.key_length"), c.head_dim));
  }
  c.norm_eps = static_cast<float>(keys.real("attention.layer_norm_rms_epsilon", -1));
  if (c.heads <= 0 || c.layers <= 0 || c.layers > kMaxLayers) return out;  // validate() will say so
  c.attention_scale = attention_scale(keys, *family, c);
  c.clamp_qkv = static_cast<float>(keys.real("attention.clamp_kqv", 0));
  c.attention_softcap = static_cast<float>(keys.real("attn_logit_softcapping", family->gguf_attention_softcap));
  c.logit_softcap = static_cast<float>(keys.real("final_logit_softcapping", family->gguf_logit_softcap));
  c.activation = {.kind = family->activation};
  if (keys.has("hidden_activation") && !family->activation_fixed) {
    Result<model::NamedActivation> named = model::activation_from_name(keys.text("hidden_activation"));
    if (!named.ok()) return named.status().with(file.path + ": key " + keys.full("hidden_activation"));
    c.activation = *named;
    out.activation_key = "key " + keys.full("hidden_activation");
  }
  STOKE_TRY(read_rope(file, keys, *family, &c));
  STOKE_TRY(read_moe(file, keys, *family, &c));
  read_layers(keys, *family, &c);
  STOKE_TRY(keys.failure());
  return out;
}

}  // namespace stoke::engine
