// `stoke profile MODEL -f TEXT`: runs a text through a model of the ReLU family and counts how often each gate fires.
//
// The text is cut into windows, each computed on its own, its first token replaced by the BOS where the model asks for
// one; every token goes through every layer. The model may be a file, a folder, or a store whose gates are apart; it is
// streamed where it does not fit. Thread role: the control thread. Ownership: values. Errors: kUnsupported where
// nothing fires or gates lie in the records; kInvalid for a text without tokens; as opening and running a model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "formats/firing_stats.h"
#include "stoke/stoke.h"

namespace stoke::engine {

struct RecordOptions {
  std::string model;
  ModelOptions how;  // its context is the window
  std::string text;
  int64_t tokens_max = 0;                                     // of the text; 0: all
  std::function<void(int64_t done, int64_t total)> progress;  // tokens; may be empty
};
Result<formats::FiringStats> record_firing(const RecordOptions& options);

}  // namespace stoke::engine
