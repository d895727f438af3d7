#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

#include "base/check.h"

namespace stoke::cli {
namespace {

// A signal handler can reach only what has static storage.
CancelFlag interrupted{false};
std::atomic<int> first_signal{0};
bool installed = false;

extern "C" void on_signal(int number) {
  int none = 0;
  first_signal.compare_exchange_strong(none, number);  // before the flag: who sees that reads this
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
  first_signal = 0;
  handle(on_signal);
}

Interrupt::~Interrupt() {
  handle(SIG_DFL);
  installed = false;
}

const CancelFlag& Interrupt::flag() const { return interrupted; }
void Interrupt::clear() {
  interrupted = false;
  first_signal = 0;
}

int Interrupt::exit_status() const { return 128 + first_signal; }

}  // namespace stoke::cli
