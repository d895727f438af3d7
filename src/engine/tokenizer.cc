// Tokenizer: from a model's metadata to the text library, and the public face of it.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/memory_need.h"
#include "engine/tokenizer_impl.h"
#include "sys/files.h"
#include "text/gguf_vocab.h"
#include "text/tokenizer_config.h"

namespace stoke {
namespace engine {
namespace {

using Json = nlohmann::json;

template <typename T>
std::vector<T> list(const formats::ModelFile& file, std::string_view key) {
  const formats::MetaArray* array = file.array(key);
  const auto* values = array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
  return values == nullptr ? std::vector<T>() : *values;
}

int32_t token_id(const formats::ModelFile& file, std::string_view key, size_t tokens) {
  int64_t id = -1;
  if (!file.get(key, &id) || id < 0 || id >= static_cast<int64_t>(tokens)) return -1;
  return static_cast<int32_t>(id);
}

std::optional<bool> flag(const formats::ModelFile& file, std::string_view key) {
  bool value = false;
  return file.get(key, &value) ? std::optional(value) : std::nullopt;
}

text::GgufVocab read_vocab(const formats::ModelFile& file) {
  text::GgufVocab vocab;
  file.get("tokenizer.ggml.model", &vocab.model);
  file.get("tokenizer.ggml.pre", &vocab.pre);
  file.get("general.name", &vocab.model_name);
  vocab.tokens = list<std::string>(file, "tokenizer.ggml.tokens");
  vocab.merges = list<std::string>(file, "tokenizer.ggml.merges");
  for (const double score : list<double>(file, "tokenizer.ggml.scores"))
    vocab.scores.push_back(static_cast<float>(score));
  for (const int64_t type : list<int64_t>(file, "tokenizer.ggml.token_type")) {
    vocab.types.push_back(static_cast<int32_t>(type));
  }
  const size_t n = vocab.tokens.size();
  vocab.bos = token_id(file, "tokenizer.ggml.bos_token_id", n);
  vocab.eos = token_id(file, "tokenizer.ggml.eos_token_id", n);
  vocab.unk = token_id(file, "tokenizer.ggml.unknown_token_id", n);
  vocab.pad = token_id(file, "tokenizer.ggml.padding_token_id", n);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const int32_t id = token_id(file, key, n); id >= 0) vocab.end_of_generation.push_back(id);
  }
  vocab.add_bos = flag(file, "tokenizer.ggml.add_bos_token");
  vocab.add_eos = flag(file, "tokenizer.ggml.add_eos_token");
  vocab.add_space_prefix = flag(file, "tokenizer.ggml.add_space_prefix");
  vocab.remove_extra_whitespaces = flag(file, "tokenizer.ggml.remove_extra_whitespaces");
  for (const int64_t byte : list<int64_t>(file, "tokenizer.ggml.precompiled_charsmap")) {
    vocab.precompiled_charsmap += static_cast<char>(byte);
  }
  return vocab;
}

// generation_config.json's eos_token_id: a number or a list of numbers.
std::vector<int32_t> end_of_generation(const formats::ModelFile& file) {
  const Json config = Json::parse(file.generation_config_json, nullptr, false);
  std::vector<int32_t> ids;
  if (!config.is_object() || !config.contains("eos_token_id")) return ids;
  const Json& eos = config["eos_token_id"];
  const auto add = [&](const Json& id) {
    if (id.is_number_integer()) ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
  };
  if (eos.is_array()) {
    for (const Json& id : eos) add(id);
  } else {
    add(eos);
  }
  return ids;
}

Result<std::unique_ptr<text::Tokenizer>> folder_tokenizer(const formats::ModelFile& file) {
  if (!file.tokenizer_json_text.empty()) {
    return text::Tokenizer::from_json(file.tokenizer_json_text, file.tokenizer_config_json, end_of_generation(file));
  }
  if (file.tokenizer_json.empty()) {
    return Status(Code::kNotFound, "no tokenizer.json in the folder: download it beside the weights");
  }
  STOKE_ASSIGN(const std::string json, sys::read_file(file.tokenizer_json));
  return text::Tokenizer::from_json(json, file.tokenizer_config_json, end_of_generation(file));
}

Result<std::unique_ptr<text::Tokenizer>> gguf_tokenizer(const formats::ModelFile& file) {
  if (file.array("tokenizer.ggml.tokens") == nullptr) {
    return Status(Code::kUnsupported, "tokenizer.ggml.tokens is absent: the file has weights, but no vocabulary");
  }
  return text::Tokenizer::from_gguf(read_vocab(file));
}

// Empty where the model has none.
Result<std::string> template_source(const formats::ModelFile& file) {
  std::string source = file.chat_template;
  if (file.kind == "gguf") file.get("tokenizer.chat_template", &source);
  if (source.empty()) {
    STOKE_ASSIGN(const text::TokenizerConfig config, text::parse_tokenizer_config(file.tokenizer_config_json));
    source = config.chat_template;
  }
  return source;
}

std::string text_of(const text::Tokenizer& tokenizer, int32_t id) {
  return id < 0 ? std::string() : tokenizer.token_bytes(id);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const formats::ModelFile& file) {
  auto made = file.kind == "gguf" ? gguf_tokenizer(file) : folder_tokenizer(file);
  if (!made.ok()) return made.status().with(file.path);
  auto impl = std::make_unique<Tokenizer::Impl>();
  impl->tokenizer = std::move(*made);
  auto source = template_source(file);
  if (!source.ok()) return source.status().with(file.path);
  impl->has_chat = !source->empty();
  if (impl->has_chat) {
    const text::Tokenizer& tokenizer = *impl->tokenizer;
    auto chat =
        text::ChatTemplate::create(*source, text_of(tokenizer, tokenizer.bos()), text_of(tokenizer, tokenizer.eos()));
    // A template that cannot be used is told when somebody chats; completing text needs none.
    if (chat.ok())
      impl->chat = std::move(*chat);
    else
      impl->chat_failure = chat.status().with(file.path + ": chat template");
  }
  return std::make_unique<Tokenizer>(std::move(impl));
}

}  // namespace engine

namespace {

Result<text::Prompt> render(const Tokenizer::Impl& impl, std::span<const ChatMessage> messages,
                            const ChatOptions& options) {
  if (!impl.has_chat) {
    return Status(Code::kUnsupported, "the model has no chat template: use it with plain prompts");
  }
  if (impl.chat == nullptr) return impl.chat_failure;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  const text::ChatRequest request{
      .messages = list.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace),
      .variables = options.extra_json,
      .add_generation_prompt = options.add_generation_prompt};
  return impl.chat->render(request, impl.tokenizer.get());
}

Status check_room(const Tokenizer::Impl& impl, size_t text_bytes) {
  const auto needed = static_cast<int64_t>(impl.tokenizer->encoding_bytes(text_bytes));
  if (needed <= impl.room) return ok_status();
  return Status(Code::kNoMemory, fmt::format("a text of {}: tokenizing it takes up to {}, and the memory budget leaves "
                                             "{}; shorten the text or raise --memory",
                                             engine::bytes_text(static_cast<int64_t>(text_bytes)),
                                             engine::bytes_text(needed), engine::bytes_text(impl.room)));
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::open(const std::string& path) {
  STOKE_ASSIGN(const formats::ModelFile file, formats::open_model_file(path));
  return engine::make_tokenizer(file);
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const TokenizeOptions& options) const {
  STOKE_TRY(check_room(*impl_, text.size()));
  return impl_->tokenizer->encode(text, {.add_bos = options.bos, .parse_special = options.special});
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool special) const {
  return impl_->tokenizer->decode(tokens, !special);
}

bool Tokenizer::is_eos(int32_t token) const { return impl_->tokenizer->is_end_of_generation(token); }
int32_t Tokenizer::bos() const { return impl_->tokenizer->bos(); }
bool Tokenizer::adds_bos() const { return impl_->tokenizer->adds_bos(); }
int64_t Tokenizer::vocabulary() const { return impl_->tokenizer->vocab_size(); }
bool Tokenizer::has_chat_template() const { return impl_->has_chat; }

Result<std::string> Tokenizer::apply_chat_template(std::span<const ChatMessage> messages,
                                                   const ChatOptions& options) const {
  STOKE_ASSIGN(const text::Prompt prompt, render(*impl_, messages, options));
  return prompt.text();
}

Result<std::vector<int32_t>> Tokenizer::encode_chat(std::span<const ChatMessage> messages,
                                                    const ChatOptions& options) const {
  STOKE_ASSIGN(const text::Prompt prompt, render(*impl_, messages, options));
  STOKE_TRY(check_room(*impl_, prompt.marked.size()));
  return impl_->tokenizer->encode_prompt(prompt);
}

}  // namespace stoke
