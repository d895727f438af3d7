// Bytes of tokens in, whole characters out: text to show while tokens arrive. A character that needs several tokens is
// held back until it is complete. Bytes that can be no character become U+FFFD at once, so the pieces put together are
// what Tokenizer::decode gives for all tokens.
// Thread role: one owner. Errors: none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stoke::text {

class Tokenizer;

// `text` with every maximal invalid run replaced by U+FFFD, as Python's errors="replace" does it.
std::string valid_utf8(std::string_view text);

class Utf8Stream {
 public:
  // The text that became complete with these bytes; may be empty.
  std::string push(std::string_view bytes);
  // The end: what is still held back becomes U+FFFD.
  std::string finish();

 private:
  std::string held_;  // the beginning of a character, at most 3 bytes
};

// The same over tokens. Requires: the tokenizer outlives it.
class TokenStream {
 public:
  // `at_start`: the first token starts a text (SentencePiece's leading blank is left out), not a continuation.
  explicit TokenStream(const Tokenizer& tokenizer, bool skip_special = true, bool at_start = false);
  std::string push(int32_t token);
  std::string finish() { return stream_.finish(); }

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool strip_next_;
  Utf8Stream stream_;
};

}  // namespace stoke::text
