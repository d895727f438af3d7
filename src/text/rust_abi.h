// The C ABI of the Rust library behind this folder (rust/src/abi.rs declares the same). Only for this folder's sources.
//
// Slices are borrowed for the call. Bytes and Ids that come back belong to the caller, who frees them once. A function
// that returns false has filled `error`; one that returns true has not. No function throws or stops the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

extern "C" {

struct StokeTextTokenizer;
struct StokeTextChat;

struct StokeTextSlice {
  const char* data;
  size_t size;
};

struct StokeTextBytes {
  char* data;
  size_t size;
  size_t capacity;
};

struct StokeTextIds {
  uint32_t* data;
  size_t size;
  size_t capacity;
};

struct StokeTextVocabulary {
  const StokeTextSlice* tokens;
  const int32_t* types;
  const float* scores;
  size_t token_count;
  const StokeTextSlice* merges;
  size_t merge_count;
  const StokeTextSlice* patterns;
  size_t pattern_count;
  const StokeTextSlice* rstrip_not;
  size_t rstrip_not_count;
  StokeTextSlice charsmap;
  int32_t unk;
  uint8_t kind;  // 0 byte-level BPE, 1 SentencePiece BPE, 2 unigram
  uint8_t ignore_merges;
  uint8_t nfc;
  uint8_t space_prefix;
  uint8_t squeeze_spaces;
  uint8_t rstrip_special;
};

struct StokeTextAdded {
  StokeTextSlice content;
  uint8_t special;
  uint8_t normalized;
  uint8_t lstrip;
  uint8_t rstrip;
  uint8_t single_word;
};

struct StokeTextInfo {
  size_t vocab_size;
  size_t memory_bytes;
  size_t window;  // bytes of a long text that are taken together; 0: all
  uint8_t strips_leading_space;
};

struct StokeTextRequest {
  StokeTextSlice messages;
  StokeTextSlice tools;
  StokeTextSlice variables;
  int64_t now;
  uint8_t add_generation_prompt;
};

bool stoke_text_from_vocabulary(const StokeTextVocabulary* vocabulary, StokeTextTokenizer** out, StokeTextBytes* error);
bool stoke_text_from_json(StokeTextSlice json, const StokeTextAdded* added, size_t added_count,
                          StokeTextTokenizer** out, StokeTextBytes* error);
void stoke_text_free(StokeTextTokenizer* tokenizer);
void stoke_text_info(const StokeTextTokenizer* tokenizer, StokeTextInfo* out);
void stoke_text_surroundings(const StokeTextTokenizer* tokenizer, StokeTextIds* prefix, StokeTextIds* suffix);
bool stoke_text_encode(const StokeTextTokenizer* tokenizer, StokeTextSlice text, bool parse_special, uint32_t mark,
                       size_t window, StokeTextIds* out, StokeTextBytes* error);
void stoke_text_token(const StokeTextTokenizer* tokenizer, uint32_t id, StokeTextBytes* out);
bool stoke_text_is_special(const StokeTextTokenizer* tokenizer, uint32_t id);
int64_t stoke_text_id(const StokeTextTokenizer* tokenizer, StokeTextSlice name);  // -1: none
bool stoke_text_chat_new(StokeTextSlice source, StokeTextSlice bos, StokeTextSlice eos, StokeTextChat** out,
                         StokeTextBytes* error);
void stoke_text_chat_free(StokeTextChat* chat);
bool stoke_text_chat_render(const StokeTextChat* chat, const StokeTextTokenizer* tokenizer,
                            const StokeTextRequest* request, StokeTextBytes* out, uint32_t* mark,
                            StokeTextBytes* error);
void stoke_text_bytes_free(StokeTextBytes bytes);
void stoke_text_ids_free(StokeTextIds ids);
size_t stoke_text_live_bytes();

}  // extern "C"

namespace stoke::text {

inline StokeTextSlice slice(std::string_view text) { return {text.data(), text.size()}; }

// Copies what Rust gave into a string and frees it.
inline std::string take(StokeTextBytes bytes) {
  std::string copy(bytes.data, bytes.size);
  stoke_text_bytes_free(bytes);
  return copy;
}

inline std::vector<int32_t> take(StokeTextIds ids) {
  std::vector<int32_t> copy(ids.data, ids.data + ids.size);
  stoke_text_ids_free(ids);
  return copy;
}

}  // namespace stoke::text
