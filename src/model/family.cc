#include "model/family.h"

#include <array>

#include "base/check.h"

namespace stoke::model {
namespace {

struct CommonName {
  Role role;
  const char* gguf;
  const char* hf;
};

#define L "blk.{l}."
#define H "model.layers.{l}."
constexpr CommonName kCommon[] = {
    {Role::kEmbedding, "token_embd.weight", "model.embed_tokens.weight"},
    {Role::kOutputNorm, "output_norm.weight", "model.norm.weight"},
    {Role::kHead, "output.weight", "lm_head.weight"},
    {Role::kRopeFreqs, "rope_freqs.weight", nullptr},
    {Role::kRopeLong, "rope_factors_long.weight", nullptr},
    {Role::kRopeShort, "rope_factors_short.weight", nullptr},
    {Role::kAttnNorm, L "attn_norm.weight", H "input_layernorm.weight"},
    {Role::kAttnPostNorm, L "post_attention_norm.weight", nullptr},
    {Role::kFfnNorm, L "ffn_norm.weight", H "post_attention_layernorm.weight"},
    {Role::kFfnPostNorm, L "post_ffw_norm.weight", nullptr},
    {Role::kQ, L "attn_q.weight", H "self_attn.q_proj.weight"},
    {Role::kK, L "attn_k.weight", H "self_attn.k_proj.weight"},
    {Role::kV, L "attn_v.weight", H "self_attn.v_proj.weight"},
    {Role::kQkv, L "attn_qkv.weight", H "self_attn.qkv_proj.weight"},
    {Role::kO, L "attn_output.weight", H "self_attn.o_proj.weight"},
    {Role::kQBias, L "attn_q.bias", H "self_attn.q_proj.bias"},
    {Role::kKBias, L "attn_k.bias", H "self_attn.k_proj.bias"},
    {Role::kVBias, L "attn_v.bias", H "self_attn.v_proj.bias"},
    {Role::kQkvBias, L "attn_qkv.bias", nullptr},
    {Role::kOBias, L "attn_output.bias", H "self_attn.o_proj.bias"},
    {Role::kQNorm, L "attn_q_norm.weight", H "self_attn.q_norm.weight"},
    {Role::kKNorm, L "attn_k_norm.weight", H "self_attn.k_norm.weight"},
    {Role::kSinks, L "attn_sinks.weight", H "self_attn.sinks"},
    {Role::kGate, L "ffn_gate.weight", H "mlp.gate_proj.weight"},
    {Role::kUp, L "ffn_up.weight", H "mlp.up_proj.weight"},
    {Role::kGateUp, nullptr, H "mlp.gate_up_proj.weight"},
    {Role::kDown, L "ffn_down.weight", H "mlp.down_proj.weight"},
    {Role::kGateBias, L "ffn_gate.bias", H "mlp.gate_proj.bias"},
    {Role::kUpBias, L "ffn_up.bias", H "mlp.up_proj.bias"},
    {Role::kDownBias, L "ffn_down.bias", H "mlp.down_proj.bias"},
    {Role::kRouter, L "ffn_gate_inp.weight", H "mlp.gate.weight"},
    {Role::kRouterBias, L "ffn_gate_inp.bias", nullptr},
    {Role::kExpertGate, L "ffn_gate_exps.weight", H "mlp.experts.{e}.gate_proj.weight"},
    {Role::kExpertUp, L "ffn_up_exps.weight", H "mlp.experts.{e}.up_proj.weight"},
    {Role::kExpertGateUp, L "ffn_gate_up_exps.weight", H "mlp.experts.gate_up_proj"},
    {Role::kExpertDown, L "ffn_down_exps.weight", H "mlp.experts.{e}.down_proj.weight"},
    {Role::kExpertDownStacked, nullptr, H "mlp.experts.down_proj"},
    {Role::kExpertGateBias, L "ffn_gate_exps.bias", nullptr},
    {Role::kExpertUpBias, L "ffn_up_exps.bias", nullptr},
    {Role::kExpertDownBias, L "ffn_down_exps.bias", nullptr},
    {Role::kSharedGate, L "ffn_gate_shexp.weight", H "mlp.shared_expert.gate_proj.weight"},
    {Role::kSharedUp, L "ffn_up_shexp.weight", H "mlp.shared_expert.up_proj.weight"},
    {Role::kSharedDown, L "ffn_down_shexp.weight", H "mlp.shared_expert.down_proj.weight"},
    {Role::kSharedWeight, L "ffn_gate_inp_shexp.weight", H "mlp.shared_expert_gate.weight"},
};

constexpr RoleName kGemmaHf[] = {
    {Role::kAttnPostNorm, H "post_attention_layernorm.weight"},
    {Role::kFfnNorm, H "pre_feedforward_layernorm.weight"},
    {Role::kFfnPostNorm, H "post_feedforward_layernorm.weight"},
};
constexpr RoleName kOlmo2Hf[] = {
    {Role::kAttnPostNorm, H "post_attention_layernorm.weight"},
    {Role::kFfnPostNorm, H "post_feedforward_layernorm.weight"},
};
constexpr RoleName kPhi3Gguf[] = {
    {Role::kGate, nullptr},
    {Role::kUp, nullptr},
    {Role::kGateUp, L "ffn_up.weight"},
};
constexpr RoleName kMixtralHf[] = {
    {Role::kRouter, H "block_sparse_moe.gate.weight"},
    {Role::kExpertGate, H "block_sparse_moe.experts.{e}.w1.weight"},
    {Role::kExpertUp, H "block_sparse_moe.experts.{e}.w3.weight"},
    {Role::kExpertDown, H "block_sparse_moe.experts.{e}.w2.weight"},
};
constexpr RoleName kGptOssGguf[] = {
    {Role::kAttnPostNorm, nullptr},
    {Role::kFfnNorm, L "post_attention_norm.weight"},
};
constexpr RoleName kGptOssHf[] = {
    {Role::kRouter, H "mlp.router.weight"},
    {Role::kRouterBias, H "mlp.router.bias"},
    {Role::kExpertGate, nullptr},
    {Role::kExpertUp, nullptr},
    {Role::kExpertDown, nullptr},
    {Role::kExpertGateUpBias, H "mlp.experts.gate_up_proj_bias"},
    {Role::kExpertDownBias, H "mlp.experts.down_proj_bias"},
    {Role::kExpertGateUpBlocks, H "mlp.experts.gate_up_proj_blocks"},
    {Role::kExpertGateUpScales, H "mlp.experts.gate_up_proj_scales"},
    {Role::kExpertDownBlocks, H "mlp.experts.down_proj_blocks"},
    {Role::kExpertDownScales, H "mlp.experts.down_proj_scales"},
};
#undef L
#undef H

// The files of the larger Gemma 3 models name only what is unlike the 4B one.
constexpr const char* kGemma3Defaults =
    R"({"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh"})";

constexpr Family kFamilies[] = {
    {.name = "llama",
     .gguf_arch = "llama",
     .hf_type = "llama",
     .gguf_neox = false,
     .moe_optional = true,
     .normalize = true},
    {.name = "mistral", .gguf_arch = nullptr, .hf_type = "mistral"},
    // Its code applies ReLU to gate and up whatever the configuration calls it.
    {.name = "bamboo",
     .gguf_arch = nullptr,
     .hf_type = "bamboo",
     .activation = Activation::kDrelu,
     .activation_fixed = true},
    {.name = "mixtral",
     .gguf_arch = nullptr,
     .hf_type = "mixtral",
     .moe = true,
     .normalize = true,
     .hf_names = kMixtralHf},
    {.name = "qwen2", .gguf_arch = "qwen2", .hf_type = "qwen2"},
    {.name = "qwen3", .gguf_arch = "qwen3", .hf_type = "qwen3", .qk_norm = QkNorm::kHead},
    {.name = "qwen2moe", .gguf_arch = "qwen2moe", .hf_type = "qwen2_moe", .moe = true, .shared_expert = true},
    {.name = "qwen3moe",
     .gguf_arch = "qwen3moe",
     .hf_type = "qwen3_moe",
     .qk_norm = QkNorm::kHead,
     .moe = true,
     .normalize = true},
    {.name = "gemma2",
     .gguf_arch = "gemma2",
     .hf_type = "gemma2",
     .norms = NormStyle::kSandwich,
     .activation = Activation::kGelu,
     .scaled_embedding = true,
     .hf_norm_plus_one = true,
     .window_period = 2,
     .gguf_window = 4096,
     .gguf_attention_softcap = 50,
     .gguf_logit_softcap = 30,
     .wide_scale_layers = 46,
     .hf_names = kGemmaHf},
    {.name = "gemma3",
     .gguf_arch = "gemma3",
     .hf_type = "gemma3_text",
     .norms = NormStyle::kSandwich,
     .qk_norm = QkNorm::kHead,
     .activation = Activation::kGelu,
     .scaled_embedding = true,
     .hf_norm_plus_one = true,
     .window_period = 6,
     .local_rope = true,
     .wide_scale_layers = 62,
     .hf_defaults = kGemma3Defaults,
     .hf_names = kGemmaHf},
    {.name = "phi3", .gguf_arch = "phi3", .hf_type = "phi3", .gguf_names = kPhi3Gguf},
    {.name = "smollm3", .gguf_arch = "smollm3", .hf_type = "smollm3", .gguf_neox = false, .rope_period = 4},
    {.name = "olmo2",
     .gguf_arch = "olmo2",
     .hf_type = "olmo2",
     .norms = NormStyle::kPost,
     .qk_norm = QkNorm::kWidth,
     .hf_names = kOlmo2Hf},
    {.name = "olmoe", .gguf_arch = "olmoe", .hf_type = "olmoe", .qk_norm = QkNorm::kWidth, .moe = true},
    {.name = "gpt-oss",
     .gguf_arch = "gpt-oss",
     .hf_type = "gpt_oss",
     .activation = Activation::kSwigluOai,
     .activation_fixed = true,
     .window_period = 2,
     .yarn_truncate = false,
     .moe = true,
     .softmax_first = false,
     .sinks = true,
     .interleaved_experts = true,
     .gguf_names = kGptOssGguf,
     .hf_names = kGptOssHf},
};

const RoleName* find_override(std::span<const RoleName> names, Role role) {
  for (const RoleName& row : names) {
    if (row.role == role) return &row;
  }
  return nullptr;
}

const CommonName* find_common(Role role) {
  for (const CommonName& row : kCommon) {
    if (row.role == role) return &row;
  }
  return nullptr;
}

}  // namespace

const Family* find_gguf_family(std::string_view arch) {
  for (const Family& family : kFamilies) {
    if (family.gguf_arch != nullptr && arch == family.gguf_arch) return &family;
  }
  return nullptr;
}

const Family* find_hf_family(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (family.hf_type != nullptr && model_type == family.hf_type) return &family;
  }
  return nullptr;
}

std::string known_families() {
  std::string all;
  for (const Family& family : kFamilies) all += (all.empty() ? "" : ", ") + std::string(family.name);
  return all;
}

const char* gguf_name(const Family& family, Role role) {
  if (const RoleName* row = find_override(family.gguf_names, role)) return row->name;
  const CommonName* common = find_common(role);
  return common == nullptr ? nullptr : common->gguf;
}

const char* hf_name(const Family& family, Role role) {
  if (const RoleName* row = find_override(family.hf_names, role)) return row->name;
  const CommonName* common = find_common(role);
  return common == nullptr ? nullptr : common->hf;
}

std::string tensor_name(std::string_view pattern, int64_t layer, int64_t expert) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const bool slot = pattern[i] == '{' && i + 2 < pattern.size() && pattern[i + 2] == '}';
    if (!slot) {
      out += pattern[i];
      continue;
    }
    out += std::to_string(pattern[i + 1] == 'l' ? layer : expert);
    i += 2;
  }
  return out;
}

}  // namespace stoke::model
