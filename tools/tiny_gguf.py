"""Writes the GGUF twin of a tiny Hugging Face folder (make_model_goldens.py), with llama.cpp's keys and names."""

import json

import numpy as np
from gguf import GGUFWriter
from safetensors.torch import load_file

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
EXPERTS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}


def norm_name(part, arch):
    if arch in ("gemma2", "gemma3", "olmo2"):
        return {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                "post_feedforward_layernorm": "post_ffw_norm"}.get(part)
    if part == "post_attention_layernorm":
        return "post_attention_norm" if arch == "gpt-oss" else "ffn_norm"
    return None


def interleave(w, heads):
    """Rotary pairs (i, i + n/2) of each head become neighbours, as GGUF's llama layout wants them."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def split_gpt_oss(tensors):
    out = {}
    for name, w in tensors.items():
        if name.endswith("experts.gate_up_proj"):
            w = w.swapaxes(1, 2)
            layer = name.split(".")[2]
            out[f"blk.{layer}.ffn_gate_exps.weight"], out[f"blk.{layer}.ffn_up_exps.weight"] = w[:, ::2], w[:, 1::2]
        elif name.endswith("experts.gate_up_proj_bias"):
            layer = name.split(".")[2]
            out[f"blk.{layer}.ffn_gate_exps.bias"], out[f"blk.{layer}.ffn_up_exps.bias"] = w[:, ::2], w[:, 1::2]
        elif name.endswith("experts.down_proj"):
            out[f"blk.{name.split('.')[2]}.ffn_down_exps.weight"] = w.swapaxes(1, 2)
        elif name.endswith("experts.down_proj_bias"):
            out[f"blk.{name.split('.')[2]}.ffn_down_exps.bias"] = w
        elif name.endswith("self_attn.sinks"):
            out[f"blk.{name.split('.')[2]}.attn_sinks.weight"] = w
        else:
            out[name] = w
    return out


def stack_experts(tensors):
    out, groups = {}, {}
    for name, w in tensors.items():
        if ".experts." in name and name.endswith(".weight") and name.split(".experts.")[1][0].isdigit():
            expert, part = name.split(".experts.")[1].split(".")[:2]
            groups.setdefault((name.split(".")[2], EXPERTS[part]), {})[int(expert)] = w
        else:
            out[name] = w
    for (layer, part), experts in groups.items():
        out[f"blk.{layer}.ffn_{part}_exps.weight"] = np.stack([experts[e] for e in sorted(experts)])
    return out


def rename(name, arch):
    if name.startswith("blk."):
        return name
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{norm_name(part, arch) or NAMES[part]}.{kind}"


def add_keys(w, arch, c):
    rope = c.get("rope_parameters") or {}
    full = rope.get("full_attention", rope)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(full["rope_theta"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_vocab_size(c["vocab_size"])
    if arch in ("gemma2", "gemma3", "gpt-oss"):
        w.add_sliding_window(c["sliding_window"])
    if arch == "gemma3":
        w.add_sliding_window_pattern([t == "sliding_attention" for t in c["layer_types"]])
    if arch == "gemma2":
        w.add_attn_logit_softcapping(c["attn_logit_softcapping"])
        w.add_final_logit_softcapping(c["final_logit_softcapping"])
        w.add_attention_scale(c["query_pre_attn_scalar"] ** -0.5)
    if full["rope_type"] == "linear":
        w.add_string(f"{arch}.rope.scaling.type", "linear")
        w.add_rope_scaling_factor(full["factor"])
    if full["rope_type"] == "yarn":
        w.add_string(f"{arch}.rope.scaling.type", "yarn")
        w.add_rope_scaling_factor(full["factor"])
        w.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
    if full["rope_type"] == "longrope":
        original = full["original_max_position_embeddings"]
        stretch = c["max_position_embeddings"] / original
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(original))))
    experts = c.get("num_local_experts", c.get("num_experts"))
    if experts:
        w.add_expert_count(experts)
        w.add_expert_used_count(c["num_experts_per_tok"])
    if arch in ("qwen2moe", "gpt-oss"):
        w.add_expert_feed_forward_length(c.get("moe_intermediate_size", c["intermediate_size"]))
    if arch == "qwen2moe":
        w.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])
    if c.get("clip_qkv"):
        w.add_clamp_kqv(c["clip_qkv"])
    activation = {"relu": "relu", "fatrelu": f"fatrelu:{c.get('hidden_act_param')}"}.get(c.get("hidden_act"))
    if activation:
        w.add_string(f"{arch}.hidden_activation", activation)


def llama3_factors(c):
    """The divisors that llama.cpp's converter computes from Llama 3.1's rope scaling."""
    rope = c["rope_parameters"]
    half = c["head_dim"] // 2
    freq = rope["rope_theta"] ** (-np.arange(half) * 2.0 / c["head_dim"])
    wave = 2 * np.pi / freq
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    smooth = (rope["original_max_position_embeddings"] / wave - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    original = rope["original_max_position_embeddings"]
    return np.where(wave < original / high, 1, np.where(wave > original / low, factor, blended)).astype(np.float32)


def write(folder, arch):
    c = json.loads((folder / "config.json").read_text())
    tensors = {k: v.float().numpy() for k, v in load_file(folder / "model.safetensors").items()}
    tensors = stack_experts(split_gpt_oss(tensors))
    w = GGUFWriter(folder / "model.gguf", arch)
    add_keys(w, arch, c)
    rope = c["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(c))
    if rope.get("rope_type") == "longrope":
        w.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
        w.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
    for name, value in tensors.items():
        target = rename(name, arch)
        if arch in ("llama", "smollm3") and (".q_proj." in name or ".k_proj." in name):
            value = interleave(value, c["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
        if arch in ("gemma2", "gemma3") and "norm" in target:
            value = value + 1
        if "inp_shexp" in target:
            value = value.reshape(-1)
        small = value.ndim == 1 or target.endswith(".bias") or "ffn_gate_inp" in target
        w.add_tensor(target, np.ascontiguousarray(value.astype(np.float32 if small else np.float16)))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
