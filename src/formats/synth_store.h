// A synthetic ReLU model written as a neuron store at once (docs/FORMAT.md): no source to convert, so that a store may
// take as much of the disk as there is.
//
// Gates and ups are those of the GGUF file of the same options; Down is made along the model dimension, in Q4_0 where
// the model's type has up to 4 bits, else Q8_0, floats as they are: as stoke convert chooses. Layout split. How often
// each neuron fires is written, too; neurons lie in a random order unless SynthActivity::hot_first.
// Memory: some megabytes and the checksums. Thread role: any. Errors: kInvalid, kNoSpace, kCancelled, kIo; a failure
// leaves no file.
#pragma once

#include <cstdint>
#include <functional>

#include "base/status.h"
#include "formats/synth.h"

namespace stoke::formats {

// What write_synth does where the output's name ends in .stoke.
Result<SynthSummary> write_synth_store(const SynthOptions& options, const SynthShape& shape, const SynthMix& mix,
                                       const SynthPlan& plan);

}  // namespace stoke::formats
