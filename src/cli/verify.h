// `stoke inspect --verify`: a store against the checksums it carries, any other model's files against a list of
// SHA-256. Thread role: main thread.
#pragma once

#include <string>

#include "cli/interrupt.h"
#include "stoke/status.h"

namespace stoke::cli {

// `hashes`: a file of lines "digest  name", as sha256sum writes it; empty: SHA256SUMS beside the model's first file.
// Returns what was found whole, in words. kCorrupt names what is damaged; kNotFound where the list says nothing of a
// file; kCancelled where interrupted.
Result<std::string> verify_model(const std::string& path, const std::string& hashes, bool progress,
                                 const Interrupt& interrupt);

}  // namespace stoke::cli
