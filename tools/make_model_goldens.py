#!/usr/bin/env python3
"""Tiny random models of every family, and what transformers computes with them: tests/data/model/<name>/.

    python tools/make_model_goldens.py [name ...]        (needs torch, transformers, safetensors, gguf)

A folder holds config.json, model.safetensors (BF16), for some families model.gguf (F16), and golden.json: a prompt, the
logits at some positions, and 64 greedy tokens. All weights are n * 2^-s with |n| < 128, so that BF16 and F16 hold
them exactly and both files are the same model. Keys and values are rounded to F16 before attention, as stoke's cache
does; everything else is FP32. A seed is taken only if each greedy token wins by a clear margin.
"""

import importlib
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import drelu
import fatrelu
import tiny_gguf

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "model"
VOCAB, DIM, HEADS, KV_HEADS, HEAD_DIM, FFN = 192, 64, 4, 2, 16, 96
PROMPT, STEPS, WINDOW = 40, 64, 16
POSITIONS = [0, 17, PROMPT - 1]
MARGIN = 2e-3  # of the largest logit: what a greedy token must win by

BASE = dict(vocab_size=VOCAB, hidden_size=DIM, intermediate_size=FFN, num_hidden_layers=2, num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, max_position_embeddings=256, bos_token_id=1,
            eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
MOE = dict(num_experts_per_tok=2, intermediate_size=32, moe_intermediate_size=32)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)


def longrope(original):
    half = HEAD_DIM // 2
    return dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=original,
                short_factor=[1.0 + 0.05 * i for i in range(half)], long_factor=[1.0 + 0.5 * i for i in range(half)])


def theta(value):
    return dict(rope_type="default", rope_theta=value)


# name: (config class, model module, settings, extra)
FAMILIES = {
    "llama": ("Llama", dict(rope_parameters=theta(10000.0))),
    "llama3": ("Llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    "mistral": ("Mistral", dict(sliding_window=WINDOW, rope_parameters=theta(10000.0))),
    "qwen2": ("Qwen2", dict(use_sliding_window=False, rope_parameters=theta(1e6), tie_word_embeddings=True)),
    "qwen2-yarn": ("Qwen2", dict(use_sliding_window=False, rope_parameters=YARN)),
    "qwen3": ("Qwen3", dict(head_dim=32, rope_parameters=theta(1e6))),
    "gemma2": ("Gemma2", dict(sliding_window=WINDOW, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
                              final_logit_softcapping=30.0, tie_word_embeddings=True, rope_parameters=theta(10000.0),
                              hidden_activation="gelu_pytorch_tanh")),
    "gemma3": ("Gemma3Text", dict(sliding_window=WINDOW, query_pre_attn_scalar=16, num_hidden_layers=3,
                                  layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                                  tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh",
                                  rope_parameters={"full_attention": dict(rope_type="linear", factor=8.0,
                                                                          rope_theta=1e6),
                                                   "sliding_attention": theta(10000.0)})),
    "phi3": ("Phi3", dict(rope_parameters=longrope(4096), original_max_position_embeddings=4096, sliding_window=WINDOW,
                          max_position_embeddings=4096)),
    "phi3-long": ("Phi3", dict(rope_parameters=longrope(32), original_max_position_embeddings=32)),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4, no_rope_layer_interval=4, rope_parameters=theta(10000.0),
                                use_sliding_window=False, tie_word_embeddings=True)),
    "olmo2": ("Olmo2", dict(rope_parameters=theta(10000.0))),
    "mixtral": ("Mixtral", dict(MOE, num_local_experts=4, sliding_window=None, rope_parameters=theta(1e6))),
    "qwen2moe": ("Qwen2Moe", dict(MOE, num_experts=6, shared_expert_intermediate_size=64, mlp_only_layers=[],
                                  decoder_sparse_step=1, norm_topk_prob=False, use_sliding_window=False,
                                  rope_parameters=theta(10000.0))),
    "qwen3moe": ("Qwen3Moe", dict(MOE, num_experts=8, norm_topk_prob=True, mlp_only_layers=[0], intermediate_size=64,
                                  decoder_sparse_step=1, use_sliding_window=False, rope_parameters=theta(1e6))),
    "olmoe": ("Olmoe", dict(MOE, num_experts=8, norm_topk_prob=False, clip_qkv=3.0, rope_parameters=theta(10000.0))),
    "gpt-oss": ("GptOss", dict(MOE, num_local_experts=4, sliding_window=WINDOW,
                               rope_parameters=dict(YARN, beta_fast=32.0, beta_slow=1.0, truncate=False))),
    "llama-reglu": ("Llama", dict(hidden_act="relu", rope_parameters=theta(10000.0))),
    "llama-fatrelu": ("Llama", dict(hidden_act="fatrelu", hidden_act_param=0.25, rope_parameters=theta(10000.0))),
    "mistral-drelu": ("Mistral", dict(hidden_act="drelu", sliding_window=None, rope_parameters=theta(10000.0))),
    "mixtral-drelu": ("Mixtral", dict(MOE, hidden_act="drelu", num_local_experts=4, sliding_window=None,
                                      rope_parameters=theta(1e6))),
}
GGUF = {"llama": "llama", "llama3": "llama", "qwen2": "qwen2", "qwen2-yarn": "qwen2", "qwen3": "qwen3",
        "gemma2": "gemma2", "gemma3": "gemma3", "phi3-long": "phi3", "smollm3": "smollm3", "olmo2": "olmo2",
        "mixtral": "llama", "qwen2moe": "qwen2moe", "olmoe": "olmoe", "gpt-oss": "gpt-oss", "llama-reglu": "llama",
        "llama-fatrelu": "llama"}


def build(class_name, settings):
    config = getattr(transformers, class_name + "Config")(**{**BASE, **settings})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    patch = {"drelu": drelu, "fatrelu": fatrelu}.get(settings.get("hidden_act"))
    if patch:
        config.hidden_act = "relu"
    model = getattr(transformers, class_name.removesuffix("Text") + "ForCausalLM")(config).float().eval()
    if patch:
        config.hidden_act = settings["hidden_act"]
        patch.apply(model)
    return model


def fill(model, seed):
    """Integers times a power of two; their spread keeps activations near one."""
    random = np.random.default_rng(seed)
    for name, p in sorted(model.state_dict().items()):
        shape = tuple(p.shape)
        n = np.clip(np.round(random.standard_normal(shape) * 40), -127, 127)
        if name.endswith("norm.weight") or "layernorm" in name:
            gemma = "gemma" in type(model).__name__.lower()
            value = n / 256 + (0 if gemma else 1)
            value = np.round(value * 128) / 128
        elif "bias" in name or "sinks" in name:
            value = n / 128
        elif "embed" in name:
            value = n / (512 if "gemma" in type(model).__name__.lower() else 64)  # Gemma scales it by sqrt(64)
        else:
            value = n / 256  # deviation 0.16: width 64 gives outputs of about the size of the inputs
        p.copy_(torch.tensor(value, dtype=torch.float32))
    model.tie_weights()


def round_cache(model):
    """Keys and values as stoke's cache holds them."""
    module = importlib.import_module(type(model).__module__)
    plain = getattr(module, "plain_attention", module.eager_attention_forward)
    module.plain_attention = plain

    def rounded(owner, query, key, value, *args, **kwargs):
        return plain(owner, query, key.half().float(), value.half().float(), *args, **kwargs)

    module.eager_attention_forward = rounded


def run(model, prompt):
    tokens, margin = list(prompt), np.inf
    rows = {}
    for step in range(STEPS):
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        if step == 0:
            rows = {p: logits[p] for p in POSITIONS}
        top = np.sort(logits[-1])
        margin = min(margin, (top[-1] - top[-2]) / np.abs(logits[-1]).max())
        tokens.append(int(logits[-1].argmax()))
    rows[len(tokens) - 2] = logits[-1]
    return tokens[len(prompt):], rows, margin


def make(name):
    class_name, settings = FAMILIES[name]
    model = build(class_name, settings)
    round_cache(model)
    for seed in range(1, 200):
        fill(model, seed)
        prompt = np.random.default_rng(seed + 1000).integers(3, VOCAB, PROMPT).tolist()
        tokens, rows, margin = run(model, prompt)
        if margin > MARGIN and len(set(tokens)) > 3:
            break
        print(f"{name}: seed {seed} margin {margin:.4f}, {len(set(tokens))} different tokens", flush=True)
    else:
        sys.exit(f"{name}: no seed gives clear greedy tokens")
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.bfloat16().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in sorted(load_file(path).items())}, path)
    golden = dict(seed=seed, prompt=prompt, tokens=tokens, margin=float(margin),
                  logits={str(p): [float(f"{x:.7g}") for x in row] for p, row in sorted(rows.items())})
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    if name in GGUF:
        tiny_gguf.write(folder, GGUF[name])
    print(f"{name}: seed {seed}, margin {margin:.4f}, {len(set(tokens))} different tokens", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for chosen in sys.argv[1:] or FAMILIES:
            make(chosen)
