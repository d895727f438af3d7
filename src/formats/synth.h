// `stoke synth`: random models of real shapes, for measuring speed. Their text is noise by construction.
//
// Written as GGUF in a stream of row blocks: memory use does not grow with the model. Weights have standard deviation
// 1/sqrt(row length) and norms are 1, so that activations stay sane; where firing or routing is set, synth_plan.h says
// what they are; a byte-level vocabulary is embedded, so that any
// GGUF engine loads and runs the file. The same options give the same bytes. Thread role: any.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "formats/synth_mix.h"
#include "formats/synth_plan.h"
#include "formats/synth_shape.h"

namespace stoke::formats {

struct SynthOptions {
  SynthShape shape;  // complete_shape is called on it
  std::string type = "q4_0";
  uint64_t seed = 0;
  SynthActivity activity;  // what fires and which experts are chosen; for shapes with a ReLU or experts
  std::string output;
  bool knows_firing = true;  // a store carries its firing rates; false: as one that was converted without statistics
  std::string stats_output;  // where its firing statistics go (synth_stats.h); empty: nowhere
  // Called now and then with bytes written and to write; false stops with kCancelled. May be empty.
  std::function<bool(uint64_t done, uint64_t total)> progress;
};

struct SynthSummary {
  uint64_t parameters = 0;
  uint64_t bytes = 0;  // of tensors, padding included
  size_t tensors = 0;
};

// Fails with kInvalid for impossible sizes or types, kNoSpace for a full disk; a failure leaves no file.
Result<SynthSummary> write_synth(const SynthOptions& options);

}  // namespace stoke::formats
