// Perplexity of a text, as llama-perplexity measures it; `stoke ppl` and `stoke convert --ppl`.
//
// The text's tokens (a BOS first where the model asks for one) are cut into windows; a rest is dropped. Each window is
// computed on its own, its first token replaced by the BOS where the model asks for one, and the tokens of its second
// half are scored: size - size/2 - 1 of them.
// Thread role: main thread. Ownership: values.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include "cli/interrupt.h"
#include "stoke/stoke.h"

namespace stoke::cli {

inline constexpr int64_t kPplWindow = 512;

struct PplOptions {
  int64_t window = kPplWindow;
  int64_t windows_max = 0;  // 0: all
  bool progress = false;    // a line on standard error
};

struct PplScore {
  double nll = 0;  // sum
  int64_t tokens = 0;
  int64_t windows = 0;
  double mean() const { return nll / static_cast<double>(tokens); }
  double perplexity() const { return std::exp(mean()); }
};

// kInvalid where the text is shorter than a window, kCancelled where interrupted.
Result<PplScore> score_tokens(Model& model, std::span<const int32_t> tokens, const PplOptions& options,
                              const Interrupt& interrupt);
Result<PplScore> score_text(Model& model, const std::string& text, const PplOptions& options,
                            const Interrupt& interrupt);

}  // namespace stoke::cli
