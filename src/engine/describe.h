// What a prepared model is, for people and scripts: names, counts, types.
// Thread role: any. Ownership: values.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"

namespace stoke::engine {

// What a neuron store is, in words; empty for other files.
std::string describe_store(const Prepared& prepared);
ModelInfo describe(const Prepared& prepared);
// Tensors by stored type, most bytes first.
std::vector<Fit::TypeShare> type_shares(const formats::ModelFile& file);

}  // namespace stoke::engine
