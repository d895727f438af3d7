#include "text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

namespace stoke::text {
namespace {

using Json = nlohmann::json;

bool flag(const Json& object, const char* key) {
  auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

std::optional<bool> optional_flag(const Json& object, const char* key) {
  auto it = object.find(key);
  if (it == object.end() || !it->is_boolean()) return std::nullopt;
  return it->get<bool>();
}

// A token is written as its text or as an object with it.
std::string token_text(const Json& object, const char* key) {
  auto it = object.find(key);
  if (it == object.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_object()) return {};
  auto content = it->find("content");
  return content != it->end() && content->is_string() ? content->get<std::string>() : std::string();
}

std::vector<AddedTokenConfig> added_tokens(const Json& object) {
  auto it = object.find("added_tokens_decoder");
  if (it == object.end() || !it->is_object()) return {};
  std::vector<std::pair<long, AddedTokenConfig>> found;
  for (const auto& [id, token] : it->items()) {
    auto content = token.is_object() ? token.find("content") : token.end();
    if (!token.is_object() || content == token.end() || !content->is_string()) continue;
    found.push_back({std::strtol(id.c_str(), nullptr, 10),
                     {.content = content->get<std::string>(),
                      .special = flag(token, "special"),
                      .normalized = flag(token, "normalized"),
                      .lstrip = flag(token, "lstrip"),
                      .rstrip = flag(token, "rstrip"),
                      .single_word = flag(token, "single_word")}});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<AddedTokenConfig> tokens;
  tokens.reserve(found.size());
  for (auto& [id, token] : found) tokens.push_back(std::move(token));
  return tokens;
}

// One template, or several with names of which one is "default".
std::string chat_template(const Json& object) {
  auto it = object.find("chat_template");
  if (it == object.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) return {};
  for (const Json& entry : *it) {
    if (entry.is_object() && token_text(entry, "name") == "default") return token_text(entry, "template");
  }
  return {};
}

// The classes that build their post-processor from add_bos_token; others leave it to tokenizer.json.
bool heeds_add_bos(const std::string& name) {
  constexpr std::array kClasses = {"Llama", "Gemma", "Cohere"};
  return std::any_of(kClasses.begin(), kClasses.end(), [&](const char* c) { return name.find(c) != name.npos; });
}

}  // namespace

Result<TokenizerConfig> parse_tokenizer_config(std::string_view json) {
  TokenizerConfig config;
  if (json.empty()) return config;
  Json object = Json::parse(json, nullptr, false);
  if (!object.is_object()) return Status(Code::kCorrupt, "tokenizer_config.json is not a JSON object");
  config.bos = token_text(object, "bos_token");
  config.eos = token_text(object, "eos_token");
  if (heeds_add_bos(token_text(object, "tokenizer_class"))) {
    config.add_bos = optional_flag(object, "add_bos_token");
    config.add_eos = optional_flag(object, "add_eos_token");
  }
  config.added = added_tokens(object);
  config.chat_template = chat_template(object);
  return config;
}

}  // namespace stoke::text
