#include "sys/populator.h"

#include <sched.h>

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>

namespace stoke::sys {
namespace {

constexpr size_t kStep = size_t{4} << 20;  // so much at most comes after stop() was called

// Only when a processor has nothing else to do: populating 12 GB beside two threads that compute cost a third of their
// rate. Where it is refused the thread is an ordinary one.
void become_idle() {
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
}

}  // namespace

struct Populator::Worker {
  std::vector<Range> ranges;
  std::jthread thread;
};

Populator::Populator() = default;
Populator::~Populator() { stop(); }

void Populator::start(std::vector<Range> ranges) {
  stop();
  worker_ = std::make_unique<Worker>(Worker{.ranges = std::move(ranges), .thread = {}});
  try {
    worker_->thread = std::jthread([list = &worker_->ranges](const std::stop_token& stopped) {
      become_idle();
      for (const Range& range : *list) {
        for (size_t at = 0; at < range.bytes && !stopped.stop_requested(); at += kStep) {
          range.memory->populate(at, std::min(kStep, range.bytes - at));
        }
      }
    });
  } catch (const std::system_error&) {
    worker_.reset();  // no thread to be had: memory comes with its first touch
  }
}

void Populator::stop() { worker_.reset(); }

}  // namespace stoke::sys
