// The model's own chat template: a Jinja program that turns messages into a prompt, run as its makers run it (trimmed
// blocks, break and continue, Python's methods, raise_exception, strftime_now, tojson as json.dumps writes it).
//
// A template comes with a model file, so it is run within bounds (steps, 256 MB, 20 s) in a thread of its own; what
// goes beyond fails with a Status. A template that had to be stopped by force is not run again, and the memory it held
// at that moment (at most the bound) is not given back.
// Thread role: immutable; any number of threads may render at a time. Errors: Status; nothing throws.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "text/tokenizer.h"

struct StokeTextChat;

namespace stoke::text {

struct ChatRequest {
  std::string messages;   // JSON: a list of {"role": ..., "content": ...}
  std::string tools;      // JSON: a list of tools; empty for none
  std::string variables;  // JSON: an object of further variables such as enable_thinking; empty for none
  bool add_generation_prompt = true;
  std::optional<int64_t> now;  // seconds since 1970 for strftime_now; unset: the clock
};

class ChatTemplate {
 public:
  // `bos` and `eos`: the text of these tokens, which templates print; empty where the model has none.
  static Result<std::unique_ptr<ChatTemplate>> create(std::string_view source, std::string_view bos,
                                                      std::string_view eos);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // With a tokenizer, special-token text inside messages and tools is marked so that Tokenizer::encode_prompt keeps it
  // text. Without one the prompt is plain.
  Result<Prompt> render(const ChatRequest& request, const Tokenizer* tokenizer) const;

 private:
  explicit ChatTemplate(StokeTextChat* rust) : rust_(rust) {}
  StokeTextChat* rust_;  // owned
};

}  // namespace stoke::text
