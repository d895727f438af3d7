// The GGUF reader: versions 2 and 3, little-endian, one file or the parts of a split one.
//
// A file is a header (metadata, then a table of tensors) and the tensors' bytes; only the header is read. A split model
// is files named NAME-00001-of-0000N.gguf beside one another, each with its own table; metadata is the first one's.
// Thread role: any. Errors: one line that names the file, the byte, key or tensor, and what disagrees.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/byte_source.h"
#include "formats/model_file.h"

namespace stoke::formats {

// `path` names the file, or any part of a split model.
Result<ModelFile> open_gguf(const FileOpener& files, const std::string& path);

}  // namespace stoke::formats
