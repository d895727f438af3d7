// How byte-level BPE families cut text into words before merging: one table row per tokenizer.ggml.pre value.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoke::text {

struct PreTokenizer {
  std::vector<std::string_view> names;     // values of tokenizer.ggml.pre
  std::vector<std::string_view> patterns;  // applied in turn; what does not match stays a part, too
  bool ignore_merges = false;              // a word that is a token is that token, whatever the merges say
  bool add_bos = false;                    // where the file does not say
  bool nfc = false;                        // Unicode normalization form C comes first
};

// Null where no row has this name.
const PreTokenizer* find_pre_tokenizer(std::string_view name);

// All names, separated by blanks, for an error message.
std::string known_pre_tokenizers();

}  // namespace stoke::text
