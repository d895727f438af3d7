// A Hugging Face config.json to model::Config.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/config_reader.h"

namespace stoke::engine {
namespace {

using Json = nlohmann::json;
using formats::ModelFile;
using model::Config;
using model::Family;
using model::RopeConfig;
using model::RopeScaling;

// One JSON object. Absent and null are the same. A value of the wrong kind is remembered; failure() tells of the first.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  bool has(const char* key) const { return find(key) != nullptr; }
  const Json* find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  int64_t integer(const char* key, std::optional<int64_t> absent = {}) {
    const Json* value = find(key);
    if (value == nullptr) return absent.has_value() ? *absent : static_cast<int64_t>(miss(key));
    if (value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX) return INT64_MAX;
    if (value->is_number_integer()) return value->get<int64_t>();
    wrong(key, "an integer");
    return 0;
  }
  double real(const char* key, std::optional<double> absent = {}) {
    const Json* value = find(key);
    if (value == nullptr) return absent.has_value() ? *absent : miss(key);
    if (value->is_number()) return value->get<double>();
    wrong(key, "a number");
    return 0;
  }
  bool flag(const char* key, bool absent) {
    const Json* value = find(key);
    if (value == nullptr) return absent;
    if (value->is_boolean()) return value->get<bool>();
    wrong(key, "true or false");
    return absent;
  }
  std::string text(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    wrong(key, "a string");
    return "";
  }
  std::vector<float> numbers(const char* key) {
    std::vector<float> out;
    const Json* value = find(key);
    if (value == nullptr) return out;
    if (!value->is_array()) wrong(key, "a list of numbers");
    for (const Json& item : *value) {
      if (!item.is_number()) {
        wrong(key, "a list of numbers");
        return out;
      }
      out.push_back(item.get<float>());
    }
    return out;
  }
  const Status& failure() const { return failure_; }
  const std::string& where() const { return where_; }

 private:
  double miss(const char* key) {
    if (failure_.ok()) failure_ = Status(Code::kCorrupt, fmt::format("{}: key \"{}\" is missing", where_, key));
    return 0;
  }
  void wrong(const char* key, const char* wanted) {
    if (failure_.ok()) failure_ = Status(Code::kCorrupt, fmt::format("{}: key \"{}\" is not {}", where_, key, wanted));
  }

  const Json& json_;
  std::string where_;
  Status failure_;
};

// Kind of scaling by the names that configurations use.
Result<RopeScaling> scaling_from_name(const std::string& name, const std::string& where) {
  if (name.empty() || name == "default") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "llama3") return RopeScaling::kLlama3;
  if (name == "yarn") return RopeScaling::kYarn;
  if (name == "longrope" || name == "su") return RopeScaling::kLongrope;
  return Status(Code::kUnsupported,
                fmt::format("{}: rope scaling \"{}\"; known: default, linear, llama3, yarn, longrope", where, name));
}

double yarn_magnitude(Fields& scaling, double factor) {
  const auto log_scale = [factor](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0; };
  const double mscale = scaling.real("mscale", 0.0);
  const double all = scaling.real("mscale_all_dim", 0.0);
  return mscale != 0 && all != 0 ? log_scale(mscale) / log_scale(all) : log_scale(1);
}

// `scaling` is rope_scaling of older files or (one layer type of) rope_parameters of newer ones.
Status read_scaling(Fields& top, Fields& scaling, RopeConfig* rope) {
  const std::string type = scaling.has("rope_type") ? scaling.text("rope_type") : scaling.text("type");
  STOKE_ASSIGN(rope->scaling, scaling_from_name(type, scaling.where()));
  if (rope->scaling == RopeScaling::kNone) return scaling.failure();
  const int64_t context = top.integer("max_position_embeddings");
  rope->original_context =
      scaling.integer("original_max_position_embeddings", top.integer("original_max_position_embeddings", context));
  const double stretch =
      rope->original_context > 0 ? static_cast<double>(context) / static_cast<double>(rope->original_context) : 1.0;
  rope->factor = scaling.real("factor", stretch);
  rope->low_freq_factor = scaling.real("low_freq_factor", 1.0);
  rope->high_freq_factor = scaling.real("high_freq_factor", 4.0);
  rope->beta_fast = scaling.real("beta_fast", 32.0);
  rope->beta_slow = scaling.real("beta_slow", 1.0);
  rope->truncate = scaling.flag("truncate", true);
  rope->short_factors = scaling.numbers("short_factor");
  rope->long_factors = scaling.numbers("long_factor");
  double magnitude = 1;
  if (rope->scaling == RopeScaling::kYarn) magnitude = yarn_magnitude(scaling, rope->factor);
  if (rope->scaling == RopeScaling::kLongrope && rope->factor > 1 && rope->original_context > 1) {
    magnitude = std::sqrt(1 + std::log(rope->factor) / std::log(static_cast<double>(rope->original_context)));
  }
  rope->attention_factor = scaling.real("attention_factor", magnitude);
  STOKE_TRY(top.failure());
  return scaling.failure();
}

Status read_one_rope(Fields& top, const Json& parameters, double theta, int head_dim, RopeConfig* rope) {
  Fields fields(parameters, top.where());
  rope->theta = fields.real("rope_theta", theta);
  const double share = fields.real("partial_rotary_factor", top.real("partial_rotary_factor", 1.0));
  rope->n_rot = static_cast<int>(std::clamp(share, 0.0, 1.0) * head_dim);
  rope->neox = true;
  return read_scaling(top, fields, rope);
}

Status read_rope(Fields& top, const Family& family, Config* config) {
  const Json none = Json::object();
  const Json* parameters = top.find("rope_parameters");
  if (parameters == nullptr) parameters = top.find("rope_scaling");
  if (parameters == nullptr) parameters = &none;
  if (!parameters->is_object()) {
    return Status(Code::kCorrupt, fmt::format("{}: rope parameters are not an object", top.where()));
  }
  const double theta = top.real("rope_theta", 10000.0);
  const double local_theta = top.real("rope_local_base_freq", 10000.0);
  STOKE_TRY(top.failure());
  // Newer files give each kind of layer its own object.
  const auto full = parameters->find("full_attention");
  const auto sliding = parameters->find("sliding_attention");
  const bool nested = full != parameters->end() && full->is_object();
  STOKE_TRY(read_one_rope(top, nested ? *full : *parameters, theta, config->head_dim, &config->rope));
  if (!family.local_rope) return ok_status();
  const bool nested_local = sliding != parameters->end() && sliding->is_object();
  return read_one_rope(top, nested_local ? *sliding : none, local_theta, config->head_dim, &config->local_rope);
}

// Which layers slide: said layer by layer, or by a rule.
Result<std::vector<bool>> sliding_layers(Fields& top, const Family& family, int layers) {
  std::vector<bool> slides(static_cast<size_t>(layers), false);
  if (const Json* types = top.find("layer_types")) {
    if (!types->is_array() || types->size() != slides.size()) {
      return Status(Code::kCorrupt, fmt::format("{}: \"layer_types\" does not list {} layers", top.where(), layers));
    }
    for (size_t i = 0; i < slides.size(); ++i) {
      const Json& type = (*types)[i];
      if (type == "sliding_attention") {
        slides[i] = true;
      } else if (type != "full_attention") {
        return Status(Code::kUnsupported, fmt::format("{}: layer type {}; known: full_attention, sliding_attention",
                                                      top.where(), type.dump()));
      }
    }
    return slides;
  }
  const int64_t period = top.integer("sliding_window_pattern", family.window_period);
  const bool on = top.flag("use_sliding_window", true);
  const int64_t first = top.has("use_sliding_window") ? top.integer("max_window_layers", 0) : 0;
  STOKE_TRY(top.failure());
  for (int i = 0; i < layers; ++i) {
    slides[static_cast<size_t>(i)] = on && i >= first && (period <= 0 || i % period < period - 1);
  }
  return slides;
}

Status read_layers(Fields& top, const Family& family, Config* config) {
  const int64_t window = top.integer("sliding_window", 0);
  STOKE_ASSIGN(const std::vector<bool> slides, sliding_layers(top, family, config->layers));
  const Json* rope_flags = top.find("no_rope_layers");
  const int64_t rope_period = top.integer("no_rope_layer_interval", family.rope_period);
  for (int i = 0; i < config->layers; ++i) {
    const auto at = static_cast<size_t>(i);
    model::LayerConfig layer;
    layer.window = slides[at] ? window : 0;
    layer.local_rope = slides[at] && family.local_rope;
    layer.moe = config->moe.experts > 0;
    if (rope_flags != nullptr && rope_flags->is_array() && at < rope_flags->size()) {
      layer.rope = (*rope_flags)[at] != 0;  // despite the key's name, 1 says that the layer rotates
    } else if (family.rope_period > 0 && rope_period > 0) {
      layer.rope = (i + 1) % rope_period != 0;
    }
    config->layer.push_back(layer);
  }
  return top.failure();
}

Status read_moe(Fields& top, const Family& family, Config* config) {
  if (!family.moe) return ok_status();
  model::MoeConfig& moe = config->moe;
  moe.experts = narrow(top.has("num_local_experts") ? top.integer("num_local_experts") : top.integer("num_experts"));
  moe.used = narrow(top.integer("num_experts_per_tok"));
  moe.ffn = top.has("moe_intermediate_size") ? top.integer("moe_intermediate_size") : config->ffn;
  if (family.shared_expert) moe.shared_ffn = top.integer("shared_expert_intermediate_size");
  moe.softmax_first = family.softmax_first;
  moe.normalize = top.flag("norm_topk_prob", family.normalize);
  STOKE_TRY(top.failure());
  if (moe.experts > 0) return ok_status();
  return Status(Code::kCorrupt, fmt::format("{}: the number of experts is {}", top.where(), moe.experts));
}

// `named`: the file's own fields, without the family's defaults.
Status read_activation(Fields& top, const Fields& named, ModelDescription* out) {
  Config* config = &out->config;
  const Family& family = *out->family;
  config->activation = {.kind = family.activation};
  config->swiglu_alpha = static_cast<float>(top.real("swiglu_alpha", 1.702));
  config->swiglu_limit = static_cast<float>(top.real("swiglu_limit", 7.0));
  const char* key = top.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  if (family.activation_fixed || !top.has(key)) return top.failure();
  std::string name = top.text(key);
  if (name == "fatrelu" && top.has("hidden_act_param")) name += fmt::format(":{}", top.real("hidden_act_param", 0));
  Result<model::NamedActivation> activation = model::activation_from_name(name);
  if (!activation.ok()) return activation.status().with(fmt::format("{}: key \"{}\"", top.where(), key));
  config->activation = *activation;
  if (named.has(key)) out->activation_key = fmt::format("\"{}\" in config.json", key);
  return top.failure();
}

Status read_numbers(Fields& top, Config* config) {
  Config& c = *config;
  c.layers = narrow(top.integer("num_hidden_layers"));
  c.dim = top.integer("hidden_size");
  c.heads = narrow(top.integer("num_attention_heads"));
  c.kv_heads = narrow(top.integer("num_key_value_heads", c.heads));
  c.head_dim = narrow(top.integer("head_dim", c.heads > 0 ? c.dim / c.heads : 0));
  c.ffn = top.integer("intermediate_size");
  c.context = top.integer("max_position_embeddings");
  c.norm_eps = static_cast<float>(top.real("rms_norm_eps"));
  const double scalar = top.real("query_pre_attn_scalar", c.head_dim);
  c.attention_scale = static_cast<float>(1.0 / std::sqrt(scalar));
  c.attention_softcap = static_cast<float>(top.real("attn_logit_softcapping", 0.0));
  c.logit_softcap = static_cast<float>(top.real("final_logit_softcapping", 0.0));
  c.clamp_qkv = static_cast<float>(top.real("clip_qkv", 0.0));
  return top.failure();
}

// The text model's own object inside a multimodal configuration.
const Json& text_part(const Json& json) {
  const auto inner = json.find("text_config");
  return inner != json.end() && inner->is_object() ? *inner : json;
}

}  // namespace

Result<ModelDescription> describe_folder(const ModelFile& file) {
  const std::string where = file.path + "/config.json";
  const Json json = Json::parse(file.config_json, nullptr, false);
  if (!json.is_object()) return Status(Code::kCorrupt, where + ": is not a JSON object");
  const Json& text = text_part(json);
  Fields named(text, where);
  const std::string type = named.text("model_type");
  const Family* family = model::find_hf_family(type);
  if (family == nullptr) {
    return Status(Code::kUnsupported, fmt::format("{}: family \"{}\" (model_type) is not known to stoke; known: {}",
                                                  where, type, model::known_families()));
  }
  Json merged = family->hf_defaults == nullptr ? Json::object() : Json::parse(family->hf_defaults);
  merged.update(text);
  Fields top(merged, where);
  ModelDescription out{.family = family};
  Config& c = out.config;
  c.family = family->name;
  STOKE_TRY(read_numbers(top, &c));
  if (c.heads <= 0 || c.layers <= 0 || c.layers > kMaxLayers) return out;  // validate() will say so
  STOKE_TRY(read_activation(top, named, &out));
  STOKE_TRY(read_rope(top, *family, &c));
  STOKE_TRY(read_moe(top, *family, &c));
  STOKE_TRY(read_layers(top, *family, &c));
  return out;
}

}  // namespace stoke::engine
