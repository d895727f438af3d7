// The reader of Hugging Face model folders: config.json, model.safetensors or the shards that
// model.safetensors.index.json lists, and the texts a tokenizer needs.
//
// Only headers are read. Types: F32, F16, BF16; U8 tensors (the blocks and scales of MXFP4) come raw, see
// TensorEntry::raw_type. config.json and the other JSON texts are checked for syntax and nesting, so that whoever reads
// them next may build a tree. Thread role: any. Errors: one line that names the file, the place and what disagrees.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/byte_source.h"
#include "formats/model_file.h"

namespace stoke::formats {

Result<ModelFile> open_safetensors(const FileOpener& files, const std::string& folder);

}  // namespace stoke::formats
