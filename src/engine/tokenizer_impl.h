// The public Tokenizer's inside: the text library's objects for one model.
//
// Thread role: any; immutable once its model is open. Ownership: the Tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "formats/model_file.h"
#include "stoke/stoke.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace stoke {

struct Tokenizer::Impl {
  std::unique_ptr<text::Tokenizer> tokenizer;
  bool has_chat = false;                     // the model brings a template
  std::unique_ptr<text::ChatTemplate> chat;  // null: it has none, or
  Status chat_failure;                       // this is why it cannot be used
  int64_t room = INT64_MAX;                  // bytes of the model's budget that encoding a text may take
};

namespace engine {

// Of a model file whose headers are read. Failures name the model's path.
Result<std::unique_ptr<Tokenizer>> make_tokenizer(const formats::ModelFile& file);

}  // namespace engine
}  // namespace stoke
