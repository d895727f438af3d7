// How often each neuron of a synthetic ReLU model fires, as if it had been recorded (firing_stats.h): from the
// probabilities that its gates were made for.
//
// Thread role: any. Errors: kIo, kNoSpace. A failure leaves no file.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/firing_stats.h"
#include "formats/synth_plan.h"
#include "formats/synth_shape.h"

namespace stoke::formats {

// Tokens that the counts pretend to come from.
inline constexpr int64_t kSynthFiringTokens = 100000;

LayerFiring synth_firing(const SynthPlan& plan, const SynthShape& shape, int64_t layer);
// Writes the statistics of the model just written to `model`. Requires: plan.fires().
Status write_synth_firing(const SynthPlan& plan, const SynthShape& shape, const std::string& model,
                          const std::string& path);

}  // namespace stoke::formats
