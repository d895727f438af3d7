// Holds every byte of a neuron store that has a checksum against it: `stoke convert` at its end, `inspect --verify`.
// Thread role: any. Memory: one buffer of a few megabytes.
// Errors: kCorrupt naming the tensor, which record or rows, file and offset; kCancelled where `progress` says false.
#pragma once

#include <cstdint>
#include <functional>

#include "base/status.h"
#include "formats/neuron_store.h"
#include "sys/files.h"

namespace stoke::formats {

// progress(done, total bytes); may be empty.
// Reads past the page cache where that is possible: what is checked is what is on the disk.
Status verify_store(const ModelFile& model, const NeuronStore& store,
                    const std::function<bool(uint64_t, uint64_t)>& progress);

}  // namespace stoke::formats
