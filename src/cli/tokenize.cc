// stoke tokenize: a text as token ids.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/flags.h"
#include "cli/output.h"

namespace stoke::cli {
namespace {

struct TokenizeFlags {
  std::string model;
  PromptFlags prompt;
  bool chat = false;
  bool special = false;
  bool no_bos = false;
  bool json = false;
};

Result<std::vector<int32_t>> encode(const TokenizeFlags& flags, const Tokenizer& tokenizer, const std::string& text) {
  if (!flags.chat) return tokenizer.encode(text, {.bos = !flags.no_bos, .special = flags.special});
  const std::vector<ChatMessage> messages = {{"user", text}};
  return tokenizer.encode_chat(messages);
}

int run(const TokenizeFlags& flags) {
  auto path = resolve_model(flags.model);
  if (!path.ok()) return fail(path.status());
  auto tokenizer = Tokenizer::open(*path);
  if (!tokenizer.ok()) return fail(tokenizer.status());
  // Every byte counts here, the last line break too.
  auto text = read_prompt(flags.prompt, false);
  if (!text.ok()) return fail(text.status());
  auto tokens = encode(flags, **tokenizer, *text);
  if (!tokens.ok()) return fail(tokens.status());
  if (!flags.json) {
    fmt::print("{}\n", fmt::join(*tokens, " "));
    return 0;
  }
  print_json(Json{{"tokens", *tokens}, {"text", (*tokenizer)->decode(*tokens, true)}});
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  auto& flags = context.make<TokenizeFlags>();
  auto* verb = app.add_subcommand("tokenize", "a text as token ids, on one line");
  add_model(*verb, flags.model)->required();
  add_prompt_flags(*verb, flags.prompt);
  verb->add_flag("--chat", flags.chat, "put the text into the model's chat template, as one user message");
  verb->add_flag("--special", flags.special, "text that spells a special token becomes that token");
  verb->add_flag("--no-bos", flags.no_bos, "add no BOS, even where the model asks for one");
  verb->add_flag("--json", flags.json, "one JSON object: tokens, and the text that they decode to");
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
