// What tokenizer_config.json says beyond tokenizer.json.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace stoke::text {

struct AddedTokenConfig {
  std::string content;
  bool special = false;
  bool normalized = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
};

struct TokenizerConfig {
  std::string bos;  // the text of the token; empty for none
  std::string eos;
  std::optional<bool> add_bos;  // only where the tokenizer's class heeds it
  std::optional<bool> add_eos;
  std::vector<AddedTokenConfig> added;  // by ascending id
  std::string chat_template;            // the default one; empty for none
};

// An empty text gives an empty configuration.
Result<TokenizerConfig> parse_tokenizer_config(std::string_view json);

}  // namespace stoke::text
