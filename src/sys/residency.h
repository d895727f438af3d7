// How much of a file the page cache holds.
//
// Thread role: any. Ownership: none.
#pragma once

#include <cstdint>
#include <optional>

#include "sys/files.h"

namespace stoke::sys {

// Share (0 to 1) of the range's pages that are cached; reads nothing and changes nothing. Asks cachestat (Linux 6.5)
// and then mincore; nullopt where neither will tell (both answer only who may write the file).
std::optional<double> cached_share(const File& file, uint64_t offset, uint64_t bytes);

}  // namespace stoke::sys
