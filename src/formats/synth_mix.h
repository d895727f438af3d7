// Which element type each tensor of a synthetic model gets: one type everywhere, or one of llama.cpp's K-quant mixes.
//
// A plain name ("q4_0", "q6_k", "f16") is that type in every matrix. A mix ("q4_k_m", ...) gives output, attn_v,
// attn_output and ffn_down the types that llama-quantize gives them. Either way norms and routers are F32, and a row
// that is not whole blocks of the chosen type takes the type llama-quantize falls back to (Q4_K to Q5_0, Q6_K to Q8_0,
// and F16 where 32 does not divide the row either). Thread role: any; pure functions and constant data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/synth_shape.h"
#include "tensor/dtype.h"

namespace stoke::formats {

struct SynthMix {
  const char* name;
  DType base;
  uint32_t file_type;  // general.file_type
  bool mixed;
};

// kInvalid, with the list of names, where there is none of that name. The name is matched without regard to case.
Result<SynthMix> find_mix(std::string_view name);
std::vector<std::string> mix_names();

DType choose_type(const SynthMix& mix, const SynthShape& shape, const SynthTensor& tensor);

}  // namespace stoke::formats
