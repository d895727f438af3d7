#include "cli/standard_streams.h"

#include <fcntl.h>

namespace stoke::cli {

void fill_standard_streams() {
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest free number is this one. For reading alone: writing to it must fail.
    if (open("/dev/null", O_RDONLY) != descriptor) return;
  }
}

}  // namespace stoke::cli
