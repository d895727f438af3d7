// From what a model file says about itself to model::Config.
//
// Every number is checked (model::validate, and the tensors' shapes by model_loader.h); a failure names the key.
// Thread role: any. Ownership: values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "formats/model_file.h"
#include "model/config.h"
#include "model/family.h"

namespace stoke::engine {

inline constexpr int kMaxLayers = 1 << 16;

// Sizes beyond any limit stay beyond it.
inline int narrow(int64_t value) { return static_cast<int>(std::clamp<int64_t>(value, -1, 1 << 30)); }

struct ModelDescription {
  const model::Family* family = nullptr;
  model::Config config;
  // What of the file states the activation; empty: nothing, so it is the family's usual one.
  std::string activation_key;
};

// Finds the family and reads its configuration, whichever container it is. `ffn_act`, where not empty, is the
// activation of a file that states none; kInvalid where it contradicts what the file states. kUnsupported, listing the
// known ones, for an unknown family or activation.
Result<ModelDescription> read_description(const formats::ModelFile& file, const std::string& ffn_act);

// The two containers' halves of it. Config::vocab stays 0: the embedding tensor's rows give it.
Result<ModelDescription> describe_gguf(const formats::ModelFile& file);
Result<ModelDescription> describe_folder(const formats::ModelFile& file);

}  // namespace stoke::engine
