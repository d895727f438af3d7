#include "cli/interrupt.h"

#include <csignal>

#include "base/check.h"

namespace stoke::cli {
namespace {

// A signal handler can reach only what has static storage.
CancelFlag interrupted{false};
bool installed = false;

extern "C" void on_signal(int number) {
  if (interrupted.exchange(true)) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

void handle(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;  // without SA_RESTART: a read from the terminal returns
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

Interrupt::Interrupt() {
  CHECK(!installed);
  installed = true;
  interrupted = false;
  handle(on_signal);
}

Interrupt::~Interrupt() {
  handle(SIG_DFL);
  installed = false;
}

const CancelFlag& Interrupt::flag() const { return interrupted; }
void Interrupt::clear() { interrupted = false; }

}  // namespace stoke::cli
