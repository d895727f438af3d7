// Text to token ids and back, exactly as the model's makers do it, from GGUF metadata or from tokenizer.json.
//
// Reference: for tokenizer.json, the `tokenizers` package; for GGUF "gpt2" (byte-level BPE) the family's own
// pre-tokenizer and normalizer, chosen by tokenizer.ggml.pre; for GGUF "llama" and "t5", SentencePiece.
// Invalid UTF-8 in an input never fails: each maximal invalid run becomes U+FFFD, as Python's errors="replace" has it.
// Thread role: a Tokenizer is immutable once made; any number of threads may use it at a time.
// Ownership: values are copied in and out. Errors: Status; nothing throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "text/gguf_vocab.h"

struct StokeTextTokenizer;

namespace stoke::text {

struct EncodeOptions {
  bool add_bos = true;         // put before (and after) the text what the model asks for
  bool parse_special = false;  // text that spells a special token becomes it; otherwise it stays text
  size_t window = 0;           // for tests: bytes of a long text that are taken together; no token depends on it
};

// A rendered chat prompt. `mark` (0: none) is a character that stands inside every special-token text which came from
// a message, so that it is not taken for one; it is no part of the prompt.
struct Prompt {
  std::string marked;
  char32_t mark = 0;

  // The prompt without marks, for people to read.
  std::string text() const;
};

class Tokenizer {
 public:
  // Unknown models and pre-tokenizers give kUnsupported with the names that are known.
  static Result<std::unique_ptr<Tokenizer>> from_gguf(const GgufVocab& vocab);
  // `config` is the text of tokenizer_config.json, or empty; `end_of_generation`: further ids that end an answer
  // (generation_config.json's eos_token_id).
  static Result<std::unique_ptr<Tokenizer>> from_json(std::string_view tokenizer_json, std::string_view config,
                                                      std::span<const int32_t> end_of_generation = {});
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  Result<std::vector<int32_t>> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // A chat prompt: the template's special tokens become tokens, those that messages spell stay text. No BOS is added:
  // templates write their own. Equal to encode(text(), {false, true}) where no message spells a special token.
  Result<std::vector<int32_t>> encode_prompt(const Prompt& prompt) const;

  // The text of tokens that start a text: SentencePiece's leading blank is left out. Invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const int32_t> tokens, bool skip_special = true) const;
  // The bytes one token stands for, possibly a part of a character; empty for an id that is no token.
  std::string token_bytes(int32_t id) const;
  // The id of the token with this name as the vocabulary spells it, or -1.
  int32_t id(std::string_view name) const;

  int32_t vocab_size() const { return vocab_size_; }
  int32_t bos() const { return bos_; }  // -1: none
  int32_t eos() const { return eos_; }  // -1: none
  bool adds_bos() const { return !prefix_.empty(); }
  bool strips_leading_space() const { return strips_leading_space_; }
  bool is_special(int32_t id) const;
  bool is_end_of_generation(int32_t id) const { return end_of_generation_.contains(id); }
  // What holding this tokenizer costs: measured when it was made, plus the most its caches take.
  size_t memory_bytes() const { return memory_bytes_; }
  // About the most that encoding so many bytes takes while it lasts, the tokens included. Where words are found from
  // the left (byte-level BPE), long texts are taken in windows; others are taken whole, at hundreds of bytes a byte.
  size_t encoding_bytes(size_t text_bytes) const;

 private:
  friend class ChatTemplate;
  explicit Tokenizer(StokeTextTokenizer* rust);
  void find_end_of_generation(std::span<const int32_t> given);

  StokeTextTokenizer* rust_;  // owned
  int32_t vocab_size_ = 0;
  int32_t bos_ = -1;
  int32_t eos_ = -1;
  bool strips_leading_space_ = false;
  std::vector<int32_t> prefix_;  // ids that surround a text
  std::vector<int32_t> suffix_;
  std::unordered_set<int32_t> end_of_generation_;
  size_t memory_bytes_ = 0;
  size_t window_ = 0;  // bytes of a long text that are taken together; 0: all
};

// Bytes that all tokenizers and templates together hold at this moment, measured.
size_t library_bytes();

}  // namespace stoke::text
