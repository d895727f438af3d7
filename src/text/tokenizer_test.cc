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
  vocab.tokens = {"<|im_start|>", "<|im_end|>", "a", "b", "ab", "\xc4\xa0", "\xc4\xa0" "ab", "<", "|", ">", "i", "m",
                  "_", "e", "n", "d", "<tool>"};
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

}  // namespace
}  // namespace stoke::text
