// What one fork and join of the thread pool costs: the overhead of every product in a decode step.
// usage: bench_barrier [THREADS_MAX [SECONDS]]; prints one JSON object.
#include <fmt/format.h>

#include <cstdlib>

#include "sys/cpu.h"
#include "sys/profile.h"

int main(int argc, char** argv) {
  const int threads_max = argc > 1 ? std::atoi(argv[1]) : stoke::sys::default_threads(stoke::sys::topology());
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1.0;
  fmt::print("{{\"barrier_us\": {{");
  for (int threads = 1; threads <= threads_max; ++threads) {
    const double us = stoke::sys::measure_barrier_us(threads, seconds);
    fmt::print("{}\"{}\": {:.3f}", threads > 1 ? ", " : "", threads, us);
  }
  fmt::print("}}}}\n");
  return 0;
}
