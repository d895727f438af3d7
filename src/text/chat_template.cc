#include "text/chat_template.h"

#include <ctime>

#include "text/rust_abi.h"

namespace stoke::text {

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::create(std::string_view source, std::string_view bos,
                                                           std::string_view eos) {
  StokeTextChat* made = nullptr;
  StokeTextBytes error;
  if (!stoke_text_chat_new(slice(source), slice(bos), slice(eos), &made, &error)) {
    return Status(Code::kUnsupported, "chat template: " + take(error));
  }
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(made));
}

ChatTemplate::~ChatTemplate() { stoke_text_chat_free(rust_); }

Result<Prompt> ChatTemplate::render(const ChatRequest& request, const Tokenizer* tokenizer) const {
  StokeTextRequest rust{.messages = slice(request.messages),
                        .tools = slice(request.tools),
                        .variables = slice(request.variables),
                        .now = request.now.value_or(static_cast<int64_t>(std::time(nullptr))),
                        .add_generation_prompt = request.add_generation_prompt};
  StokeTextBytes text;
  StokeTextBytes error;
  uint32_t mark = 0;
  const StokeTextTokenizer* marks = tokenizer != nullptr ? tokenizer->rust_ : nullptr;
  if (!stoke_text_chat_render(rust_, marks, &rust, &text, &mark, &error)) {
    return Status(Code::kInvalid, "chat template: " + take(error));
  }
  return Prompt{.marked = take(text), .mark = mark};
}

}  // namespace stoke::text
