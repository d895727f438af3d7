// What a model is, as numbers: everything the forward pass needs to know besides the weights.
//
// Plain data, filled by the engine's loader from GGUF metadata or a Hugging Face config.json and validated before use:
// whoever holds a Config may trust every number in it (validate() below says what is promised).
// Thread role: const after loading. Ownership: values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace stoke::model {

enum class Activation : uint8_t {
  kSilu,       // silu(gate) * up
  kGelu,       // gelu_tanh(gate) * up
  kRelu,       // relu(gate) * up: ReGLU
  kDrelu,      // relu(gate) * relu(up)
  kFatrelu,    // gate > threshold ? gate * up : 0 (ProSparse)
  kSwigluOai,  // gpt-oss: clamped, gate * sigmoid(alpha * gate) * (up + 1)
};

// An activation as model files and --ffn-act name it: "silu", "relu", "fatrelu:0.01".
struct NamedActivation {
  Activation kind = Activation::kSilu;
  float threshold = 0;  // kFatrelu: at least 0

  // Whether a neuron is exactly zero unless its gate is above the threshold.
  bool fires() const { return kind == Activation::kRelu || kind == Activation::kDrelu || kind == Activation::kFatrelu; }
  // Whether a neuron with this gate . x fires. NaN does where it would be seen in the result.
  bool passes(float gate) const { return kind == Activation::kFatrelu ? gate > threshold : !(gate <= 0.0f); }
  friend bool operator==(const NamedActivation&, const NamedActivation&) = default;
};

// kUnsupported with the known ones for another name; kInvalid for a threshold that is absent, unwanted or no number.
Result<NamedActivation> activation_from_name(std::string_view name);
std::string activation_name(const NamedActivation& activation);

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn, kLongrope };

// Rotary embedding of one kind of layer. Frequencies of pair i: theta^(-2i / n_rot), then scaled.
struct RopeConfig {
  double theta = 10000;
  int n_rot = 0;     // leading elements of a head that are rotated; even
  bool neox = true;  // pairs (i, i + n_rot/2); otherwise (2i, 2i + 1)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;                 // linear, llama3, yarn: how much the context was stretched
  int64_t original_context = 0;      // llama3, yarn, longrope
  double low_freq_factor = 1;        // llama3
  double high_freq_factor = 4;       // llama3
  double beta_fast = 32;             // yarn
  double beta_slow = 1;              // yarn
  bool truncate = true;              // yarn: whole-numbered ramp ends
  double attention_factor = 1;       // multiplies cos and sin
  std::vector<float> freq_factors;   // (n_rot/2) divisors given by the file, or empty
  std::vector<float> short_factors;  // longrope: (n_rot/2) divisors up to the original context
  std::vector<float> long_factors;   // longrope: divisors beyond it
};

// Angular frequency of each pair: (n_rot/2). `context` is the longest position that will be used: longrope chooses its
// factors by it once, so that a position's rotation never depends on how far a sequence has come.
std::vector<double> rope_frequencies(const RopeConfig& rope, int64_t context);

struct MoeConfig {
  int experts = 0;            // 0: every layer is dense
  int used = 0;               // experts a token takes
  int64_t ffn = 0;            // inner size of an expert
  int64_t shared_ffn = 0;     // inner size of the shared expert; 0: none
  bool softmax_first = true;  // softmax over all experts, then the top; otherwise softmax over the chosen ones
  bool normalize = false;     // chosen probabilities are divided by their sum
};

struct LayerConfig {
  bool rope = true;         // false: no position encoding (SmolLM3)
  bool local_rope = false;  // uses Config::local_rope (Gemma 3's sliding layers)
  int64_t window = 0;       // sliding window; 0: sees everything
  bool moe = false;
};

struct Config {
  std::string family;  // as families.h names it
  int layers = 0;
  int64_t dim = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int64_t ffn = 0;  // inner size of dense layers
  int64_t vocab = 0;
  int64_t context = 0;  // positions the model was made for
  float norm_eps = 1e-5f;
  RopeConfig rope;
  RopeConfig local_rope;
  float attention_scale = 0;    // applied to q.k
  float attention_softcap = 0;  // 0: none
  float logit_softcap = 0;      // 0: none
  float embedding_scale = 1;
  float clamp_qkv = 0;  // |q|, |k| (after their norm) and |v| limited to it; 0: no limit (OLMoE)
  NamedActivation activation;
  float swiglu_alpha = 1.702f;  // kSwigluOai only
  float swiglu_limit = 7.0f;
  MoeConfig moe;
  std::vector<LayerConfig> layer;  // (layers)

  int64_t q_dim() const { return int64_t{heads} * head_dim; }
  int64_t kv_dim() const { return int64_t{kv_heads} * head_dim; }
};

// Checks every number that code relies on: positive sizes within sane limits, heads a multiple of kv_heads, factor
// tables of the right length, finite scales. One line names what is wrong.
Status validate(const Config& config);

}  // namespace stoke::model
