// The bytes of one tensor of a synthetic model, handed on in chunks as they are made.
//
// Chunks are whole groups of sixteen rows (the last is what is left), so that a store's checksums can be taken of them,
// but where a plan is not active: there they are of about a megabyte. Thread role: any; pure but for the sink.
// Errors: what the sink says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/status.h"
#include "formats/synth_plan.h"
#include "formats/synth_shape.h"
#include "tensor/dtype.h"

namespace stoke::formats {

using SynthSink = std::function<Status(std::span<const std::byte>)>;

// A seed of a tensor's own, so that adding a layer changes no other tensor.
uint64_t tensor_seed(uint64_t seed, const std::string& name);

Status make_tensor(const SynthPlan& plan, const SynthTensor& tensor, DType type, uint64_t seed, const SynthSink& sink);

}  // namespace stoke::formats
