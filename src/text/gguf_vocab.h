// The vocabulary of a GGUF file as plain data: what its tokenizer.ggml.* keys say. Whoever reads the file fills it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace stoke::text {

struct GgufVocab {
  std::string model;       // tokenizer.ggml.model: "gpt2", "llama" or "t5"
  std::string pre;         // tokenizer.ggml.pre; empty in old files
  std::string model_name;  // general.name: some families strip blanks after special tokens and say so nowhere else
  std::vector<std::string> tokens;
  std::vector<float> scores;        // empty for "gpt2"
  std::vector<int32_t> types;       // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte; may be empty
  std::vector<std::string> merges;  // "left right"; for "gpt2"
  int32_t bos = -1;                 // ids; -1 where the file names none
  int32_t eos = -1;
  int32_t unk = -1;
  int32_t pad = -1;
  std::vector<int32_t> end_of_generation;  // further ids that end an answer (eot_token_id, eom_token_id)
  std::optional<bool> add_bos;             // unset: what the kind of vocabulary is known to do
  std::optional<bool> add_eos;
  std::optional<bool> add_space_prefix;
  std::optional<bool> remove_extra_whitespaces;
  std::string precompiled_charsmap;  // raw bytes; empty for none
};

}  // namespace stoke::text
