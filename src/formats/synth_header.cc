#include "formats/synth_header.h"

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

namespace stoke::formats {
namespace {

constexpr int32_t kNormal = 1;  // token types of the format
constexpr int32_t kControl = 3;
constexpr uint32_t kQuantizationVersion = 2;

// Letter pairs that become tokens, so that merging is exercised. The first character of " t" and " a" is a blank.
constexpr std::string_view kPairs[] = {"th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es",
                                       "or", "te", "of", "ed", "is", "it", "al", "ar", "st", " t", " a", " s"};

std::string utf8(uint32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

// The printable character that stands for a byte in byte-level vocabularies: itself where it prints, otherwise the next
// of the characters from U+0100.
std::vector<std::string> byte_characters() {
  std::vector<std::string> characters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    bool prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters.push_back(utf8(prints ? byte : next++));
  }
  return characters;
}

}  // namespace

void set_architecture(const SynthShape& shape, const SynthMix& mix, GgufHeader* header) {
  auto key = [&](const char* name) { return fmt::format("{}.{}", shape.arch, name); };
  auto count = [&](const char* name, int64_t value) { header->set_u32(key(name), static_cast<uint32_t>(value)); };
  header->set_string("general.architecture", shape.arch);
  header->set_string("general.type", "model");
  header->set_string("general.name", shape.name + " (synthetic)");
  header->set_string("general.description", "random weights for measuring speed; its text is noise");
  header->set_u32("general.file_type", mix.file_type);
  header->set_u32("general.quantization_version", kQuantizationVersion);
  count("block_count", shape.layers);
  count("context_length", shape.context);
  count("embedding_length", shape.dim);
  count("feed_forward_length", shape.ffn);
  count("attention.head_count", shape.heads);
  count("attention.head_count_kv", shape.kv_heads);
  count("attention.key_length", shape.head_dim);
  count("attention.value_length", shape.head_dim);
  header->set_f32(key("attention.layer_norm_rms_epsilon"), static_cast<float>(shape.norm_epsilon));
  header->set_f32(key("rope.freq_base"), static_cast<float>(shape.rope_base));
  count("rope.dimension_count", shape.head_dim);
  count("vocab_size", shape.vocab);
  if (shape.window > 0) count("attention.sliding_window", shape.window);
  if (shape.experts > 0) {
    count("expert_count", shape.experts);
    count("expert_used_count", shape.experts_used);
  }
  if (shape.arch == "qwen3moe") count("expert_feed_forward_length", shape.ffn);
  if (!shape.activation.empty()) header->set_string(key("hidden_activation"), shape.activation);
}

void set_tokenizer(int64_t vocab, GgufHeader* header) {
  const std::vector<std::string> characters = byte_characters();
  std::vector<std::string> tokens = {"<|begin|>", "<|end|>"};
  std::vector<int32_t> types(static_cast<size_t>(vocab), kNormal);
  types[0] = types[1] = kControl;
  tokens.insert(tokens.end(), characters.begin(), characters.end());
  std::vector<std::string> merges;
  for (std::string_view pair : kPairs) {
    if (static_cast<int64_t>(tokens.size()) == vocab) break;
    const std::string& first = characters[static_cast<unsigned char>(pair[0])];
    const std::string& second = characters[static_cast<unsigned char>(pair[1])];
    merges.push_back(fmt::format("{} {}", first, second));
    tokens.push_back(first + second);
  }
  for (auto i = static_cast<int64_t>(tokens.size()); i < vocab; ++i) {
    tokens.push_back(fmt::format("{}w{}", characters[' '], i));
  }
  header->set_string("tokenizer.ggml.model", "gpt2");
  header->set_string("tokenizer.ggml.pre", "gpt-2");
  header->set_strings("tokenizer.ggml.tokens", tokens);
  header->set_i32s("tokenizer.ggml.token_type", types);
  header->set_strings("tokenizer.ggml.merges", merges);
  header->set_u32("tokenizer.ggml.bos_token_id", 0);
  header->set_u32("tokenizer.ggml.eos_token_id", 1);
  header->set_bool("tokenizer.ggml.add_bos_token", false);
}

}  // namespace stoke::formats
