#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stoke::text {
namespace {

using Ids = std::vector<int32_t>;

// A byte-level vocabulary of single letters, a few merges and special tokens.
GgufVocab byte_level() {
  GgufVocab vocab;
  vocab.model = "gpt2";
  vocab.pre = "gpt-2";
  vocab.tokens = {"<|im_start|>",
                  "<|im_end|>",
                  "a",
                  "b",
                  "ab",
                  "\xc4\xa0",
                  "\xc4\xa0"
                  "ab",
                  "<",
                  "|",
                  ">",
                  "i",
                  "m",
                  "_",
                  "e",
                  "n",
                  "d",
                  "<tool>"};
  vocab.types.assign(vocab.tokens.size(), 1);
  vocab.types[0] = vocab.types[1] = 3;
  vocab.types.back() = 4;
  vocab.merges = {"a b", "\xc4\xa0 ab"};
  vocab.bos = 0;
  vocab.eos = 1;
  return vocab;
}

std::unique_ptr<Tokenizer> make(const GgufVocab& vocab) {
  auto tokenizer = Tokenizer::from_gguf(vocab);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

TEST(Tokenizer, MergesAndSpecialTokens) {
  auto t = make(byte_level());
  EXPECT_EQ(*t->encode("ab ab"), (Ids{4, 6}));
  EXPECT_EQ(*t->encode(""), Ids{});
  EXPECT_EQ(*t->encode("<|im_end|>"), (Ids{7, 8, 10, 11, 12, 13, 14, 15, 8, 9}));
  EXPECT_EQ(*t->encode("<|im_end|>", {.parse_special = true}), Ids{1});
  EXPECT_EQ(*t->encode("a<tool>"), (Ids{2, 16}));  // a user defined token is text that stays whole
  EXPECT_TRUE(t->is_special(1));
  EXPECT_FALSE(t->is_special(16));
  EXPECT_TRUE(t->is_end_of_generation(1));
  EXPECT_FALSE(t->is_end_of_generation(0));
  EXPECT_EQ(t->token_bytes(6), " ab");
  EXPECT_EQ(t->decode(Ids{0, 4, 6, 1}), "ab ab");
  EXPECT_EQ(t->decode(Ids{0, 4, 6, 1}, false), "<|im_start|>ab ab<|im_end|>");
  EXPECT_EQ(t->token_bytes(-1), "");
  EXPECT_EQ(t->token_bytes(1 << 30), "");
}

TEST(Tokenizer, UnknownKindsAreNamed) {
  GgufVocab vocab = byte_level();
  vocab.pre = "martian";
  auto bad = Tokenizer::from_gguf(vocab);
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), Code::kUnsupported);
  EXPECT_NE(bad.status().message().find("\"martian\""), std::string::npos);
  EXPECT_NE(bad.status().message().find("llama-bpe"), std::string::npos);
  vocab.model = "venus";
  EXPECT_EQ(Tokenizer::from_gguf(vocab).status().code(), Code::kUnsupported);
}

TEST(Tokenizer, BadVocabulariesAreErrors) {
  GgufVocab vocab = byte_level();
  vocab.merges.push_back("nonsense");
  EXPECT_EQ(Tokenizer::from_gguf(vocab).status().code(), Code::kCorrupt);
  vocab = byte_level();
  vocab.merges.push_back("a unknown");  // can never happen, harms nothing
  EXPECT_TRUE(Tokenizer::from_gguf(vocab).ok());
  vocab.tokens.push_back("\xff\xfe");
  vocab.types.push_back(1);
  EXPECT_EQ(Tokenizer::from_gguf(vocab).status().code(), Code::kCorrupt);
  vocab = byte_level();
  vocab.types.pop_back();
  EXPECT_EQ(Tokenizer::from_gguf(vocab).status().code(), Code::kCorrupt);
  vocab.model = "llama";
  EXPECT_EQ(Tokenizer::from_gguf(vocab).status().code(), Code::kCorrupt);
  EXPECT_EQ(Tokenizer::from_gguf(GgufVocab{.model = "gpt2"}).status().code(), Code::kCorrupt);
}

TEST(Tokenizer, BadJsonIsAnError) {
  for (std::string json : {"", "{", "null", "[]", "{}", R"({"model":{"type":"BPE","vocab":{},"merges":["a b"]}})"}) {
    EXPECT_FALSE(Tokenizer::from_json(json, "").ok()) << json;
  }
  EXPECT_FALSE(Tokenizer::from_json(std::string(1 << 20, '['), "").ok());
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += R"({"normalizer":)";
  EXPECT_FALSE(Tokenizer::from_json(deep, "").ok());
  EXPECT_FALSE(Tokenizer::from_json("{}", "not json").ok());
}

constexpr std::string_view kTinyJson =
    R"({"added_tokens":[{"id":3,"content":"<s>","special":true,"lstrip":false,"rstrip":false,"single_word":false,)"
    R"("normalized":false}],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)"
    R"("trim_offsets":true,"use_regex":true},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":)"
    R"({"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},)"
    R"({"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[3],"tokens":["<s>"]}}},)"
    R"("decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
    R"("model":{"type":"BPE","vocab":{"l":0,"o":1,"lo":2},"merges":["l o"]}})";

// A small file may not make a small text a huge one.
TEST(Tokenizer, NormalizersThatGrowTextsAreErrors) {
  std::string json(kTinyJson);
  const std::string replace =
      R"({"type":"Replace","pattern":{"String":"a"},"content":")" + std::string(20, 'a') + "\"}";
  const auto with = [&](const std::string& normalizer) {
    std::string copy = json;
    const std::string none = R"("normalizer":null)";
    copy.replace(copy.find(none), none.size(), R"("normalizer":)" + normalizer);
    return Tokenizer::from_json(copy, "");
  };
  EXPECT_TRUE(with(replace).ok());
  const auto refused = with(R"({"type":"Sequence","normalizers":[)" + replace + "," + replace + "]}");
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("400 times as long"), std::string::npos) << refused.status().message();
}

TEST(Tokenizer, ConfigBesideTheJson) {
  auto plain = Tokenizer::from_json(kTinyJson, "");
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  EXPECT_EQ(*(*plain)->encode("lol"), (Ids{3, 2, 0}));
  EXPECT_EQ(*(*plain)->encode("lol", {.add_bos = false}), (Ids{2, 0}));
  EXPECT_TRUE((*plain)->adds_bos());
  EXPECT_EQ((*plain)->bos(), 3);

  auto with = Tokenizer::from_json(
      kTinyJson, R"({"bos_token":{"content":"<s>"},"eos_token":"</e>","tokenizer_class":"LlamaTokenizerFast",)"
                 R"("add_bos_token":false,)"
                 R"("added_tokens_decoder":{"4":{"content":"</e>","special":true}}})");
  ASSERT_TRUE(with.ok()) << with.status().message();
  EXPECT_EQ((*with)->eos(), 4);
  EXPECT_EQ((*with)->vocab_size(), 5);
  EXPECT_FALSE((*with)->adds_bos());
  EXPECT_EQ(*(*with)->encode("lo</e>", {.parse_special = true}), (Ids{2, 4}));
  EXPECT_TRUE((*with)->is_end_of_generation(4));
}

TEST(Tokenizer, MemoryIsCountedAndGivenBack) {
  size_t before = library_bytes();
  {
    auto t = make(byte_level());
    EXPECT_GT(t->memory_bytes(), 1000u);
    EXPECT_GT(library_bytes(), before);
  }
  EXPECT_LT(library_bytes(), before + 200000);
}

}  // namespace
}  // namespace stoke::text
