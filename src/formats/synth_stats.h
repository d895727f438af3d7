// How often each neuron of a synthetic ReLU model fires, as a file that a converter puts hot neurons first by.
//
// JSON: {"format": "stoke-firing-1", "model": NAME, "experts": E, "neurons": N, "layers": [[p, ...], ...]}: one array a
// layer, probabilities in the order of the gate's rows, of N neurons, or of E times N where there are experts, one
// expert after another (then p is the share of the tokens that the expert is used for). Thread role: any.
// Errors: kIo, kNoSpace; kInvalid where the model has no ReLU. A failure leaves no file.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/synth_plan.h"
#include "formats/synth_shape.h"

namespace stoke::formats {

Status write_firing_stats(const SynthPlan& plan, const SynthShape& shape, const std::string& path);

}  // namespace stoke::formats
