// How a token is chosen from the logits: plain data.
//
// The defaults choose as llama.cpp's do where both have the field (min-p 0.05, top-k 40, top-p 0.95, temperature 0.8).
// temperature 0 is greedy and exact: the highest logit, the lowest id where several are equal; the truncating fields
// are then without effect, while bias and penalties still apply.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace stoke {

// DRY: a token that would continue a repetition of `allowed_length` or more tokens of the recent text loses
// multiplier * base^(length of the repetition - allowed_length). Tokens in `breakers` end a repetition.
struct DryOptions {
  float multiplier = 0;  // 0: off
  float base = 1.75F;
  int allowed_length = 2;
  int last_n = -1;  // recent tokens looked at; -1: all that are remembered
  std::vector<int32_t> breakers;
};

struct SamplingOptions {
  uint64_t seed = 0;  // the same seed gives the same tokens on every machine
  float temperature = 0.8F;
  int top_k = 40;                  // keep this many of the most probable; 0: all
  float top_p = 0.95F;             // keep the fewest whose probabilities reach this sum; 1: all
  float min_p = 0.05F;             // drop what is less probable than this share of the most probable; 0: none
  float typical_p = 1.0F;          // keep those of most usual information content up to this sum; 1: all
  float repeat_penalty = 1.0F;     // divides positive and multiplies negative logits of recent tokens; 1: off
  float frequency_penalty = 0.0F;  // subtracted once for each recent occurrence
  float presence_penalty = 0.0F;   // subtracted where the token occurred recently
  int penalty_last_n = 64;         // recent tokens that the three penalties look at; -1: all that are remembered
  DryOptions dry;
  std::vector<std::pair<int32_t, float>> logit_bias;  // added first; -infinity forbids a token
};

}  // namespace stoke
