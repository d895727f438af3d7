// stoke profile MODEL -f TEXT -o STATS: records how often each neuron fires (engine/record_firing.h).
// Thread role: main thread. Ownership: values.
#pragma once

#include <cstdint>
#include <string>

#include "cli/flags.h"

namespace stoke::cli {

struct ProfileModelFlags {
  ModelFlags model;
  std::string file;
  std::string output;
  int64_t tokens = 0;  // of the text; 0: all
  bool json = false;
  bool quiet = false;
};

// Returns the exit status.
int profile_model(const ProfileModelFlags& flags);

}  // namespace stoke::cli
