#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "text/pre_tokenizers.h"
#include "text/rust_abi.h"
#include "text/tokenizer_config.h"
#include "text/utf8_stream.h"

namespace stoke::text {
namespace {

constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;
// The most that the words remembered by the merging models take, for the one thread that encodes.
constexpr size_t kCacheBytes = size_t{1} << 20;

// Names of tokens that end an answer, whatever else the files say.
constexpr std::array<std::string_view, 22> kEndNames = {"<|eot_id|>",
                                                        "<|im_end|>",
                                                        "<|end|>",
                                                        "<|return|>",
                                                        "<|call|>",
                                                        "<|flush|>",
                                                        "<|calls|>",
                                                        "<end_of_turn>",
                                                        "<|endoftext|>",
                                                        "<|eom_id|>",
                                                        "<EOT>",
                                                        "_<EOT>",
                                                        "[EOT]",
                                                        "[EOS]",
                                                        "<|end_of_text|>",
                                                        "<end_of_utterance>",
                                                        "<eos>",
                                                        "<turn|>",
                                                        "<|end_of_turn|>",
                                                        "<|eos|>",
                                                        "<｜end▁of▁sentence｜>",
                                                        "</s>"};

bool is_end_name(std::string_view name) {
  return std::find(kEndNames.begin(), kEndNames.end(), name) != kEndNames.end();
}

std::vector<StokeTextSlice> slices(const std::vector<std::string>& texts) {
  std::vector<StokeTextSlice> all;
  all.reserve(texts.size());
  for (const std::string& text : texts) all.push_back(slice(text));
  return all;
}

std::vector<StokeTextSlice> slices(const std::vector<std::string_view>& texts) {
  std::vector<StokeTextSlice> all;
  all.reserve(texts.size());
  for (std::string_view text : texts) all.push_back(slice(text));
  return all;
}

// One type per token. Files made long ago type their end tokens as ordinary text, which would let users spell them.
std::vector<int32_t> token_types(const GgufVocab& vocab) {
  std::vector<int32_t> types = vocab.types;
  types.resize(vocab.tokens.size(), kNormal);
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == kNormal && is_end_name(vocab.tokens[i])) types[i] = kControl;
  }
  return types;
}

Status check_sizes(const GgufVocab& vocab) {
  auto corrupt = [](const std::string& what) { return Status(Code::kCorrupt, "tokenizer: " + what); };
  size_t tokens = vocab.tokens.size();
  if (tokens == 0) return corrupt("the file holds no tokens (tokenizer.ggml.tokens)");
  if (!vocab.types.empty() && vocab.types.size() != tokens) {
    return corrupt(std::to_string(vocab.types.size()) + " token types for " + std::to_string(tokens) + " tokens");
  }
  if (vocab.model != "gpt2" && vocab.scores.size() != tokens) {
    return corrupt(std::to_string(vocab.scores.size()) + " scores for " + std::to_string(tokens) + " tokens");
  }
  return ok_status();
}

// What is left to the kind of model, decided.
struct Choices {
  StokeTextVocabulary rust{};
  std::vector<std::string_view> patterns;
  std::vector<std::string_view> rstrip_not;
  bool add_bos = false;
  bool add_eos = false;
};

Status choose_byte_level(const GgufVocab& vocab, Choices* choices) {
  std::string_view name = vocab.pre.empty() ? "default" : std::string_view(vocab.pre);
  const PreTokenizer* pre = find_pre_tokenizer(name);
  if (pre == nullptr) {
    return Status(Code::kUnsupported,
                  "unknown pre-tokenizer \"" + vocab.pre + "\" (tokenizer.ggml.pre); known: " + known_pre_tokenizers());
  }
  choices->rust.kind = 0;
  choices->rust.ignore_merges = pre->ignore_merges;
  choices->rust.nfc = pre->nfc;
  choices->patterns = pre->patterns;
  choices->add_bos = vocab.add_bos.value_or(pre->add_bos);
  choices->add_eos = vocab.add_eos.value_or(false);
  return ok_status();
}

void choose_sentencepiece(const GgufVocab& vocab, bool unigram, Choices* choices) {
  choices->rust.kind = unigram ? 2 : 1;
  choices->rust.space_prefix = vocab.add_space_prefix.value_or(true);
  choices->rust.squeeze_spaces = vocab.remove_extra_whitespaces.value_or(unigram);
  choices->add_bos = vocab.add_bos.value_or(!unigram);
  choices->add_eos = vocab.add_eos.value_or(unigram);
  bool phi3 = vocab.model_name.find("phi-3") != vocab.model_name.npos ||
              vocab.model_name.find("phi3") != vocab.model_name.npos ||
              vocab.model_name.find("Phi-3") != vocab.model_name.npos ||
              vocab.model_name.find("Phi3") != vocab.model_name.npos;
  choices->rust.rstrip_special = phi3;
  choices->rstrip_not = {"<unk>", "<s>", "<|endoftext|>"};
}

Result<Choices> choose(const GgufVocab& vocab) {
  Choices choices;
  if (vocab.model == "gpt2") {
    STOKE_TRY(choose_byte_level(vocab, &choices));
  } else if (vocab.model == "llama" || vocab.model == "t5") {
    choose_sentencepiece(vocab, vocab.model == "t5", &choices);
  } else {
    return Status(Code::kUnsupported,
                  "unknown tokenizer \"" + vocab.model + "\" (tokenizer.ggml.model); known: gpt2 llama t5");
  }
  return choices;
}

int32_t unknown_id(const GgufVocab& vocab, const std::vector<int32_t>& types) {
  if (vocab.unk >= 0) return vocab.unk;
  auto it = std::find(types.begin(), types.end(), 2);
  return it != types.end() ? static_cast<int32_t>(it - types.begin()) : 0;
}

Status rust_error(Code code, StokeTextBytes error) { return Status(code, "tokenizer: " + take(error)); }

}  // namespace

std::string Prompt::text() const {
  if (mark == 0) return marked;
  std::string spelled;  // marks lie beyond U+07FF
  if (mark >= 0x10000) {
    spelled += static_cast<char>(0xF0 | (mark >> 18));
    spelled += static_cast<char>(0x80 | ((mark >> 12) & 0x3F));
  } else {
    spelled += static_cast<char>(0xE0 | (mark >> 12));
  }
  spelled += static_cast<char>(0x80 | ((mark >> 6) & 0x3F));
  spelled += static_cast<char>(0x80 | (mark & 0x3F));
  std::string out;
  size_t from = 0;
  for (size_t at; (at = marked.find(spelled, from)) != marked.npos; from = at + spelled.size()) {
    out.append(marked, from, at - from);
  }
  return out.append(marked, from);
}

Tokenizer::Tokenizer(StokeTextTokenizer* rust) : rust_(rust) {
  StokeTextInfo info;
  stoke_text_info(rust_, &info);
  vocab_size_ = static_cast<int32_t>(info.vocab_size);
  memory_bytes_ = info.memory_bytes + kCacheBytes;
  strips_leading_space_ = info.strips_leading_space != 0;
  window_ = info.window;
}

Tokenizer::~Tokenizer() { stoke_text_free(rust_); }

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_gguf(const GgufVocab& vocab) {
  STOKE_ASSIGN(Choices choices, choose(vocab));
  STOKE_TRY(check_sizes(vocab));
  std::vector<int32_t> types = token_types(vocab);
  auto tokens = slices(vocab.tokens);
  auto merges = slices(vocab.merges);
  auto patterns = slices(choices.patterns);
  auto rstrip_not = slices(choices.rstrip_not);
  StokeTextVocabulary& rust = choices.rust;
  rust.tokens = tokens.data();
  rust.types = types.data();
  rust.scores = vocab.scores.data();
  rust.token_count = tokens.size();
  rust.merges = merges.data();
  rust.merge_count = merges.size();
  rust.patterns = patterns.data();
  rust.pattern_count = patterns.size();
  rust.rstrip_not = rstrip_not.data();
  rust.rstrip_not_count = rstrip_not.size();
  rust.charsmap = slice(vocab.precompiled_charsmap);
  rust.unk = unknown_id(vocab, types);

  StokeTextTokenizer* made = nullptr;
  StokeTextBytes error;
  if (!stoke_text_from_vocabulary(&rust, &made, &error)) return rust_error(Code::kCorrupt, error);
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(made));
  auto known = [&](int32_t id) { return id >= 0 && id < tokenizer->vocab_size_ ? id : -1; };
  tokenizer->bos_ = known(vocab.bos);
  tokenizer->eos_ = known(vocab.eos);
  if (choices.add_bos && tokenizer->bos_ >= 0) tokenizer->prefix_ = {tokenizer->bos_};
  if (choices.add_eos && tokenizer->eos_ >= 0) tokenizer->suffix_ = {tokenizer->eos_};
  tokenizer->find_end_of_generation(vocab.end_of_generation);
  return tokenizer;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_json(std::string_view tokenizer_json, std::string_view config,
                                                        std::span<const int32_t> end_of_generation) {
  STOKE_ASSIGN(TokenizerConfig parsed, parse_tokenizer_config(config));
  std::vector<StokeTextAdded> added;
  for (const AddedTokenConfig& token : parsed.added) {
    added.push_back(
        {slice(token.content), token.special, token.normalized, token.lstrip, token.rstrip, token.single_word});
  }
  StokeTextTokenizer* made = nullptr;
  StokeTextBytes error;
  if (!stoke_text_from_json(slice(tokenizer_json), added.data(), added.size(), &made, &error)) {
    return rust_error(Code::kCorrupt, error).with("tokenizer.json");
  }
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(made));
  StokeTextIds prefix, suffix;
  stoke_text_surroundings(made, &prefix, &suffix);
  tokenizer->prefix_ = take(prefix);
  tokenizer->suffix_ = take(suffix);
  tokenizer->bos_ = parsed.bos.empty() ? -1 : tokenizer->id(parsed.bos);
  tokenizer->eos_ = parsed.eos.empty() ? -1 : tokenizer->id(parsed.eos);
  auto surround = [](std::optional<bool> wish, int32_t id, std::vector<int32_t>* ids) {
    if (wish && id >= 0) *ids = *wish ? std::vector<int32_t>{id} : std::vector<int32_t>{};
  };
  surround(parsed.add_bos, tokenizer->bos_, &tokenizer->prefix_);
  surround(parsed.add_eos, tokenizer->eos_, &tokenizer->suffix_);
  if (parsed.bos.empty() && tokenizer->prefix_.size() == 1) tokenizer->bos_ = tokenizer->prefix_[0];
  tokenizer->find_end_of_generation(end_of_generation);
  return tokenizer;
}

void Tokenizer::find_end_of_generation(std::span<const int32_t> given) {
  for (int32_t id : given) {
    if (id >= 0 && id < vocab_size_) end_of_generation_.insert(id);
  }
  for (std::string_view name : kEndNames) {
    int32_t token = id(name);
    if (token >= 0 && is_special(token)) end_of_generation_.insert(token);
  }
  if (eos_ >= 0) end_of_generation_.insert(eos_);
  // Where a message inside an answer ends with <|end|>, the answer goes on after it.
  bool channels = id("<|return|>") >= 0 && id("<|call|>") >= 0;
  int32_t end = id("<|end|>");
  if (channels && end != eos_) end_of_generation_.erase(end);
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  StokeTextIds ids;
  StokeTextBytes error;
  if (!stoke_text_encode(rust_, slice(text), options.parse_special, 0, options.window, &ids, &error)) {
    return rust_error(Code::kInvalid, error);
  }
  std::vector<int32_t> tokens = take(ids);
  if (options.add_bos) {
    tokens.insert(tokens.begin(), prefix_.begin(), prefix_.end());
    tokens.insert(tokens.end(), suffix_.begin(), suffix_.end());
  }
  return tokens;
}

Result<std::vector<int32_t>> Tokenizer::encode_prompt(const Prompt& prompt) const {
  StokeTextIds ids;
  StokeTextBytes error;
  if (!stoke_text_encode(rust_, slice(prompt.marked), true, prompt.mark, 0, &ids, &error)) {
    return rust_error(Code::kInvalid, error);
  }
  return take(ids);
}

size_t Tokenizer::encoding_bytes(size_t text_bytes) const {
  constexpr size_t kEach = 300;       // measured: 110 to 270
  constexpr size_t kTokenBytes = 12;  // of a token: in Rust, here, and while a vector grows
  return (window_ > 0 ? std::min(text_bytes, window_) : text_bytes) * kEach + text_bytes / 2 * kTokenBytes;
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool skip_special) const {
  TokenStream stream(*this, skip_special, true);
  std::string text;
  for (int32_t token : tokens) text += stream.push(token);
  return text + stream.finish();
}

std::string Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return {};
  StokeTextBytes bytes;
  stoke_text_token(rust_, static_cast<uint32_t>(id), &bytes);
  return take(bytes);
}

int32_t Tokenizer::id(std::string_view name) const { return static_cast<int32_t>(stoke_text_id(rust_, slice(name))); }

bool Tokenizer::is_special(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return false;
  return stoke_text_is_special(rust_, static_cast<uint32_t>(id));
}

size_t library_bytes() { return stoke_text_live_bytes(); }

}  // namespace stoke::text
