// Metadata of a synthetic model: the architecture's keys and a byte-level vocabulary. Internal to synth.
// Thread role: any; pure functions.
#pragma once

#include "formats/gguf_writer.h"
#include "formats/synth_mix.h"
#include "formats/synth_shape.h"

namespace stoke::formats {

void set_architecture(const SynthShape& shape, const SynthMix& mix, GgufHeader* header);

// A GPT-2 style byte-level vocabulary of exactly `vocab` tokens: begin, end, the 256 bytes, a few merged letter pairs,
// then made-up words that no text tokenises to but that print as text. Requires: vocab >= 258.
void set_tokenizer(int64_t vocab, GgufHeader* header);

}  // namespace stoke::formats
