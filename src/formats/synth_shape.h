// Shapes of the models that `stoke synth` writes: named ones (those of published models) and free sizes.
// Thread role: any; pure functions and constant data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace stoke::formats {

struct SynthShape {
  std::string name;
  std::string arch = "llama";  // "llama" (with experts: Mixtral), "qwen3", "qwen3moe" or "gemma3"
  int64_t layers = 0;
  int64_t dim = 0;
  int64_t ffn = 0;  // width of the FFN; of one expert where there are experts
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;
  int64_t context = 4096;
  int64_t experts = 0;
  int64_t experts_used = 0;
  int64_t window = 0;  // sliding window of the local layers; 0: none
  double rope_base = 10000;
  double norm_epsilon = 1e-5;
  bool tied = false;            // the head is the embedding
  std::string activation = {};  // <arch>.hidden_activation; empty: not written
};

// The shape of that name, if there is one.
std::optional<SynthShape> find_shape(std::string_view name);
std::vector<std::string> shape_names();
// An empty shape of an architecture, to be filled with free sizes; kInvalid where the architecture is not known.
Result<SynthShape> free_shape(const std::string& arch);
// Fails where sizes are absent, beyond what the format or an engine takes, or contradict one another. Fills kv_heads
// and head_dim where they are 0.
Status complete_shape(SynthShape* shape);

// What a tensor is for: decides its type in a mix and its values.
enum class SynthRole { kEmbedding, kOutput, kNorm, kRouter, kQ, kK, kV, kAttentionOutput, kGate, kUp, kDown };

struct SynthTensor {
  std::string name;
  SynthRole role = SynthRole::kNorm;
  int64_t layer = 0;
  std::vector<int64_t> shape;  // row-major
};

// The tensors in file order, layer by layer. Requires: complete_shape passed.
std::vector<SynthTensor> list_tensors(const SynthShape& shape);

}  // namespace stoke::formats
