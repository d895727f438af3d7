// What tells a model's gates from another's: their shape, and a fingerprint of some of their rows as stored.
//
// The same for a model's file and a store of it whose neurons lie in the source's order. Statistics of what fires are
// held against it (formats/firing_stats.h). Thread role: any; reads a few rows of every layer. Ownership: values.
// Errors: kUnsupported where gates are not stored by rows; kIo, kCorrupt.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "engine/model_loader.h"
#include "formats/firing_stats.h"
#include "formats/model_file.h"

namespace stoke::engine {

struct GateMark {
  std::vector<formats::FiringShape> layers;
  uint64_t fingerprint = 0;
};
Result<GateMark> mark_gates(const formats::ModelFile& file, const ModelPlan& loaded);

}  // namespace stoke::engine
