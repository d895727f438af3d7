#include "formats/synth_mix.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

namespace stoke::formats {
namespace {

// File type numbers as GGUF documents them.
constexpr SynthMix kMixes[] = {
    {"f32", DType::kF32, 0, false},      {"f16", DType::kF16, 1, false},        {"bf16", DType::kBF16, 32, false},
    {"q4_0", DType::kQ4_0, 2, false},    {"q4_1", DType::kQ4_1, 3, false},      {"q5_0", DType::kQ5_0, 8, false},
    {"q5_1", DType::kQ5_1, 9, false},    {"q8_0", DType::kQ8_0, 7, false},      {"q2_k", DType::kQ2_K, 10, false},
    {"q3_k", DType::kQ3_K, 11, false},   {"q4_k", DType::kQ4_K, 14, false},     {"q5_k", DType::kQ5_K, 16, false},
    {"q6_k", DType::kQ6_K, 18, false},   {"iq4_nl", DType::kIQ4_NL, 25, false}, {"iq4_xs", DType::kIQ4_XS, 30, false},
    {"mxfp4", DType::kMXFP4, 38, false}, {"q3_k_s", DType::kQ3_K, 11, true},    {"q3_k_m", DType::kQ3_K, 12, true},
    {"q3_k_l", DType::kQ3_K, 13, true},  {"q4_k_s", DType::kQ4_K, 14, true},    {"q4_k_m", DType::kQ4_K, 15, true},
    {"q5_k_s", DType::kQ5_K, 16, true},  {"q5_k_m", DType::kQ5_K, 17, true},
};

constexpr uint32_t kQ3KS = 11, kQ3KM = 12, kQ3KL = 13, kQ4KS = 14, kQ4KM = 15, kQ5KM = 17;
constexpr int64_t kMixtralExperts = 8;  // llama-quantize spends more on the attention of eight-expert models

// The first and last eighth of the layers and every third between.
bool takes_more_bits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

DType type_of_v(const SynthMix& mix, const SynthShape& shape, int64_t layer) {
  if (shape.experts == kMixtralExperts) return DType::kQ8_0;
  if (mix.file_type == kQ3KM) return layer < 2 ? DType::kQ5_K : DType::kQ4_K;
  if (mix.file_type == kQ3KL) return DType::kQ5_K;
  if (mix.file_type == kQ4KS) return layer < 4 ? DType::kQ5_K : mix.base;
  bool medium = mix.file_type == kQ4KM || mix.file_type == kQ5KM;
  return medium && takes_more_bits(layer, shape.layers) ? DType::kQ6_K : mix.base;
}

DType type_of_attention_output(const SynthMix& mix, const SynthShape& shape) {
  uint32_t type = mix.file_type;
  if (shape.experts == kMixtralExperts) {
    return type == kQ3KS || type == kQ3KM || type == kQ4KS || type == kQ4KM ? DType::kQ5_K : mix.base;
  }
  if (type == kQ3KM) return DType::kQ4_K;
  return type == kQ3KL ? DType::kQ5_K : mix.base;
}

DType type_of_down(const SynthMix& mix, const SynthShape& shape, int64_t layer) {
  switch (mix.file_type) {
    case kQ3KM:
      return layer < shape.layers / 16 ? DType::kQ5_K : DType::kQ4_K;
    case kQ3KL:
      return DType::kQ5_K;
    case kQ4KS:
      return layer < shape.layers / 8 ? DType::kQ5_K : mix.base;
    case kQ4KM:
    case kQ5KM:
      return takes_more_bits(layer, shape.layers) ? DType::kQ6_K : mix.base;
    default:
      return mix.base;
  }
}

DType wanted_type(const SynthMix& mix, const SynthShape& shape, const SynthTensor& tensor) {
  if (!mix.mixed) return mix.base;
  switch (tensor.role) {
    case SynthRole::kOutput:
      break;
    case SynthRole::kEmbedding:
      if (!shape.tied) return mix.base;
      break;
    case SynthRole::kK:
      return shape.experts == kMixtralExperts ? DType::kQ8_0 : mix.base;
    case SynthRole::kV:
      return type_of_v(mix, shape, tensor.layer);
    case SynthRole::kAttentionOutput:
      return type_of_attention_output(mix, shape);
    case SynthRole::kDown:
      return type_of_down(mix, shape, tensor.layer);
    default:
      return mix.base;
  }
  return tensor.shape.back() % info(mix.base).block_elems == 0 ? DType::kQ6_K : DType::kQ8_0;
}

DType fallback(DType type) {
  switch (type) {
    case DType::kQ2_K:
    case DType::kQ3_K:
      return DType::kQ4_0;
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    case DType::kQ6_K:
      return DType::kQ8_0;
    case DType::kIQ4_XS:
      return DType::kIQ4_NL;
    default:
      return type;
  }
}

}  // namespace

Result<SynthMix> find_mix(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const SynthMix& mix : kMixes) {
    if (lower == mix.name) return mix;
  }
  return Status(Code::kInvalid,
                fmt::format("--type {}: not one synth writes; it knows {}", name, fmt::join(mix_names(), ", ")));
}

std::vector<std::string> mix_names() {
  std::vector<std::string> names;
  for (const SynthMix& mix : kMixes) names.emplace_back(mix.name);
  return names;
}

DType choose_type(const SynthMix& mix, const SynthShape& shape, const SynthTensor& tensor) {
  if (tensor.role == SynthRole::kNorm || tensor.role == SynthRole::kRouter) return DType::kF32;
  DType type = wanted_type(mix, shape, tensor);
  int64_t cols = tensor.shape.back();
  if (cols % info(type).block_elems == 0) return type;
  type = fallback(type);
  return cols % info(type).block_elems == 0 ? type : DType::kF16;
}

}  // namespace stoke::formats
