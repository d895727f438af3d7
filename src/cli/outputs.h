// Files that a verb writes, against those it reads: an output that is the model itself would destroy it.
//
// Thread role: main thread. Errors: kInvalid names both.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "stoke/status.h"

namespace stoke::cli {

// The flag and the path given with it; paths may be empty.
using NamedPath = std::pair<std::string, std::string>;

// Fails where an output is one of the inputs, by whatever name (links too), or another output. An input that is a
// folder stands for its files, the first part of a split model for all of its parts.
Status check_outputs(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs);

}  // namespace stoke::cli
