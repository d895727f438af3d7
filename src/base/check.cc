#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace stoke {

void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace stoke
