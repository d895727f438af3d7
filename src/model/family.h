// The families of models that stoke knows: one table row each, and the names of their tensors.
//
// A new family is a row here, tensor names where they differ from the common ones, and, where its mathematics differs,
// a field in config.h. Nothing here reads files: the engine's loader does, asking this table what to look for.
// Thread role: any; constant data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"

namespace stoke::model {

// What a tensor is for. Names may hold {l}, the layer, and {e}, the expert.
enum class Role : uint8_t {
  kEmbedding,
  kOutputNorm,
  kHead,
  kRopeFreqs,
  kRopeLong,
  kRopeShort,
  kAttnNorm,
  kAttnPostNorm,
  kFfnNorm,
  kFfnPostNorm,
  kQ,
  kK,
  kV,
  kQkv,
  kO,
  kQBias,
  kKBias,
  kVBias,
  kQkvBias,
  kOBias,
  kQNorm,
  kKNorm,
  kSinks,
  kGate,
  kUp,
  kGateUp,
  kDown,
  kGateBias,
  kUpBias,
  kDownBias,
  kRouter,
  kRouterBias,
  kExpertGate,
  kExpertUp,
  kExpertGateUp,
  kExpertDown,         // of all experts (expert, out, in), or one each: {e}
  kExpertDownStacked,  // of all, where kExpertDown names one each
  kExpertGateBias,
  kExpertUpBias,
  kExpertGateUpBias,
  kExpertDownBias,
  kExpertGateUpBlocks,
  kExpertGateUpScales,
  kExpertDownBlocks,
  kExpertDownScales,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kSharedWeight,
  kCount
};

inline constexpr int kRoleCount = static_cast<int>(Role::kCount);

enum class NormStyle : uint8_t {
  kPre,       // before attention and FFN
  kPost,      // after them (OLMo2)
  kSandwich,  // before and after (Gemma 2, 3)
};

enum class QkNorm : uint8_t { kNone, kHead, kWidth };

struct RoleName {
  Role role;
  const char* name;  // null: this family has no such tensor
};

struct Family {
  const char* name;       // as errors and documents say it
  const char* gguf_arch;  // general.architecture; null: not a GGUF architecture of its own
  const char* hf_type;    // config.json model_type; null: none
  NormStyle norms = NormStyle::kPre;
  QkNorm qk_norm = QkNorm::kNone;
  Activation activation = Activation::kSilu;  // where the file does not say
  bool activation_fixed = false;              // what the file says of it is not what the family computes (gpt-oss)
  bool gguf_neox = true;                      // rotary pairs in GGUF files; folders always pair (i, i + n/2)
  bool scaled_embedding = false;              // times sqrt(dim)
  bool hf_norm_plus_one = false;              // folders store norm weights less one
  int window_period = 0;                      // layers i with i % period < period - 1 slide; 0: all layers, if any
  bool local_rope = false;                    // sliding layers rotate by a base of their own (Gemma 3)
  int64_t gguf_window = 0;                    // sliding window, soft caps: where a GGUF file leaves them out
  float gguf_attention_softcap = 0;
  float gguf_logit_softcap = 0;
  int wide_scale_layers = 0;  // the model of so many layers scales scores by dim / heads, not by head_dim
  bool yarn_truncate = true;  // YaRN's ramp ends are whole numbers
  int rope_period = 0;        // layers i with (i + 1) % period == 0 have no rotary embedding; 0: all have
  bool moe = false;           // every layer is experts, unless the file says otherwise
  bool moe_optional = false;  // the file decides by its number of experts (GGUF "llama" is Mixtral, too)
  bool softmax_first = true;
  bool normalize = false;
  bool shared_expert = false;
  bool sinks = false;
  bool interleaved_experts = false;   // folders: gate and up rows alternate, and matrices lie transposed (gpt-oss)
  const char* hf_defaults = nullptr;  // a JSON object: what config.json may leave out
  std::span<const RoleName> gguf_names = {};  // where they differ from the common ones
  std::span<const RoleName> hf_names = {};
};

// Null where unknown.
const Family* find_gguf_family(std::string_view arch);
const Family* find_hf_family(std::string_view model_type);
// "llama, mistral, ...": for the error.
std::string known_families();

// The name pattern of a role; null where the family has none.
const char* gguf_name(const Family& family, Role role);
const char* hf_name(const Family& family, Role role);
// Puts the numbers into a pattern.
std::string tensor_name(std::string_view pattern, int64_t layer, int64_t expert);

}  // namespace stoke::model
