// The short names of models: the catalogue that comes with the program.
// Thread role: main thread. Ownership: values. How MODEL is resolved with it: resolve_model in verbs.h.
#pragma once

#include <vector>

#include "fetch/store.h"

namespace stoke::cli {

// No catalogue is an empty one: hf: names and URLs work without it.
Result<std::vector<fetch::CatalogueEntry>> catalogue();

}  // namespace stoke::cli
