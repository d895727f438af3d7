#include "formats/synth_shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace stoke::formats {
namespace {

// Together these keep the bytes of the largest possible model within 64 bits.
constexpr int64_t kSizeMax = 1 << 20;
constexpr int64_t kLayersMax = 1024;
constexpr int64_t kExpertsMax = 1024;
constexpr int64_t kVocabMax = 1 << 22;
constexpr int64_t kVocabMin = 258;  // 256 bytes, begin and end
constexpr const char* kArchitectures[] = {"llama", "qwen3", "qwen3moe", "gemma3"};

SynthShape mistral(std::string name) {
  return {.name = std::move(name),
          .arch = "llama",
          .layers = 32,
          .dim = 4096,
          .ffn = 14336,
          .heads = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .vocab = 32000,
          .context = 32768};
}

std::vector<SynthShape> make_shapes() {
  std::vector<SynthShape> shapes;
  shapes.push_back({.name = "llama-7b",
                    .arch = "llama",
                    .layers = 32,
                    .dim = 4096,
                    .ffn = 11008,
                    .heads = 32,
                    .kv_heads = 32,
                    .head_dim = 128,
                    .vocab = 32000,
                    .context = 4096});
  shapes.push_back(mistral("mistral-7b"));
  shapes.push_back(mistral("mistral-7b-relu"));
  shapes.back().activation = "relu";
  shapes.push_back(mistral("mixtral-47b"));
  shapes.back().experts = 8;
  shapes.back().experts_used = 2;
  shapes.back().rope_base = 1e6;
  shapes.push_back(shapes.back());
  shapes.back().name = "mixtral-47b-drelu";
  shapes.back().activation = "drelu";
  shapes.push_back({.name = "qwen3-30b-a3b",
                    .arch = "qwen3moe",
                    .layers = 48,
                    .dim = 2048,
                    .ffn = 768,
                    .heads = 32,
                    .kv_heads = 4,
                    .head_dim = 128,
                    .vocab = 151936,
                    .context = 40960,
                    .experts = 128,
                    .experts_used = 8,
                    .rope_base = 1e6,
                    .norm_epsilon = 1e-6});
  shapes.push_back({.name = "gemma-270m",
                    .arch = "gemma3",
                    .layers = 18,
                    .dim = 640,
                    .ffn = 2048,
                    .heads = 4,
                    .kv_heads = 1,
                    .head_dim = 256,
                    .vocab = 262144,
                    .context = 32768,
                    .window = 512,
                    .rope_base = 1e6,
                    .norm_epsilon = 1e-6,
                    .tied = true});
  shapes.push_back({.name = "smollm2-135m",
                    .arch = "llama",
                    .layers = 30,
                    .dim = 576,
                    .ffn = 1536,
                    .heads = 9,
                    .kv_heads = 3,
                    .head_dim = 64,
                    .vocab = 49152,
                    .context = 8192,
                    .rope_base = 1e5,
                    .tied = true});
  return shapes;
}

Status check_range(const char* what, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return ok_status();
  return Status(Code::kInvalid, fmt::format("{} is {}; {} to {} are possible", what, value, low, high));
}

// The attention and norms of a layer.
void add_attention(const SynthShape& shape, int64_t layer, std::vector<SynthTensor>* out) {
  auto add = [&](const char* name, SynthRole role, std::vector<int64_t> sizes) {
    out->push_back({fmt::format("blk.{}.{}.weight", layer, name), role, layer, std::move(sizes)});
  };
  const int64_t q = shape.heads * shape.head_dim;
  const int64_t kv = shape.kv_heads * shape.head_dim;
  add("attn_norm", SynthRole::kNorm, {shape.dim});
  add("attn_q", SynthRole::kQ, {q, shape.dim});
  add("attn_k", SynthRole::kK, {kv, shape.dim});
  add("attn_v", SynthRole::kV, {kv, shape.dim});
  add("attn_output", SynthRole::kAttentionOutput, {shape.dim, q});
  if (shape.arch != "llama") {
    add("attn_q_norm", SynthRole::kNorm, {shape.head_dim});
    add("attn_k_norm", SynthRole::kNorm, {shape.head_dim});
  }
  if (shape.arch == "gemma3") {
    add("post_attention_norm", SynthRole::kNorm, {shape.dim});
    add("post_ffw_norm", SynthRole::kNorm, {shape.dim});
  }
  add("ffn_norm", SynthRole::kNorm, {shape.dim});
}

void add_ffn(const SynthShape& shape, int64_t layer, std::vector<SynthTensor>* out) {
  auto add = [&](const char* name, SynthRole role, std::vector<int64_t> sizes) {
    if (shape.experts > 0) sizes.insert(sizes.begin(), shape.experts);
    const char* suffix = shape.experts > 0 ? "_exps" : "";
    out->push_back({fmt::format("blk.{}.{}{}.weight", layer, name, suffix), role, layer, std::move(sizes)});
  };
  if (shape.experts > 0) {
    out->push_back(
        {fmt::format("blk.{}.ffn_gate_inp.weight", layer), SynthRole::kRouter, layer, {shape.experts, shape.dim}});
  }
  add("ffn_gate", SynthRole::kGate, {shape.ffn, shape.dim});
  add("ffn_up", SynthRole::kUp, {shape.ffn, shape.dim});
  add("ffn_down", SynthRole::kDown, {shape.dim, shape.ffn});
}

}  // namespace

std::optional<SynthShape> find_shape(std::string_view name) {
  for (SynthShape& shape : make_shapes()) {
    if (shape.name == name) return std::move(shape);
  }
  return std::nullopt;
}

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (SynthShape& shape : make_shapes()) names.push_back(std::move(shape.name));
  return names;
}

Result<SynthShape> free_shape(const std::string& arch) {
  if (std::find(std::begin(kArchitectures), std::end(kArchitectures), arch) == std::end(kArchitectures)) {
    return Status(Code::kInvalid,
                  fmt::format("--arch {}: not one synth writes; it knows {}", arch, fmt::join(kArchitectures, ", ")));
  }
  SynthShape shape;
  shape.name = "synth";
  shape.arch = arch;
  shape.vocab = 32000;
  if (arch != "llama") shape.norm_epsilon = 1e-6;
  if (arch != "llama") shape.rope_base = 1e6;
  if (arch == "gemma3") {
    shape.window = 512;
    shape.tied = true;
  }
  return shape;
}

Status complete_shape(SynthShape* shape) {
  if (shape->kv_heads == 0) shape->kv_heads = shape->heads;
  STOKE_TRY(check_range("--layers", shape->layers, 1, kLayersMax));
  STOKE_TRY(check_range("--dim", shape->dim, 1, kSizeMax));
  STOKE_TRY(check_range("--ffn", shape->ffn, 1, kSizeMax));
  STOKE_TRY(check_range("--heads", shape->heads, 1, kSizeMax));
  STOKE_TRY(check_range("--kv-heads", shape->kv_heads, 1, shape->heads));
  if (shape->head_dim == 0) shape->head_dim = shape->dim / shape->heads;
  STOKE_TRY(check_range("--head-dim", shape->head_dim, 2, 4096));
  STOKE_TRY(check_range("--heads times --head-dim", shape->heads * shape->head_dim, 1, kSizeMax));
  STOKE_TRY(check_range("--vocab", shape->vocab, kVocabMin, kVocabMax));
  STOKE_TRY(check_range("--ctx", shape->context, 1, int64_t{1} << 30));
  STOKE_TRY(check_range("--experts", shape->experts, 0, kExpertsMax));
  STOKE_TRY(check_range("--experts-used", shape->experts_used, shape->experts > 0 ? 1 : 0, shape->experts));
  if (shape->heads % shape->kv_heads != 0) {
    return Status(Code::kInvalid,
                  fmt::format("--heads {} is not a multiple of --kv-heads {}", shape->heads, shape->kv_heads));
  }
  if (shape->head_dim % 2 != 0) return Status(Code::kInvalid, fmt::format("--head-dim {} is odd", shape->head_dim));
  bool wants_experts = shape->arch == "qwen3moe";
  bool takes_experts = wants_experts || shape->arch == "llama";
  if ((wants_experts && shape->experts == 0) || (!takes_experts && shape->experts > 0)) {
    return Status(Code::kInvalid, fmt::format("--experts {} does not suit --arch {}", shape->experts, shape->arch));
  }
  return ok_status();
}

std::vector<SynthTensor> list_tensors(const SynthShape& shape) {
  std::vector<SynthTensor> tensors;
  tensors.push_back({"token_embd.weight", SynthRole::kEmbedding, 0, {shape.vocab, shape.dim}});
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    add_attention(shape, layer, &tensors);
    add_ffn(shape, layer, &tensors);
  }
  tensors.push_back({"output_norm.weight", SynthRole::kNorm, 0, {shape.dim}});
  if (!shape.tied) tensors.push_back({"output.weight", SynthRole::kOutput, 0, {shape.vocab, shape.dim}});
  return tensors;
}

}  // namespace stoke::formats
