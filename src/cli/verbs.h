// The verbs of the program: each add_* function declares its flags on the application, one verb a file.
//
// A verb's callback calls context.run(function): the function does the work after parsing and returns the exit status:
// 0 done, 1 the work failed (one line on stderr says what, where and what to do), 2 wrong usage.
// Results go to stdout, everything else to stderr; nothing but results and failures is printed when stderr is no
// terminal, unless asked for. Thread role: main thread.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stoke/status.h"

namespace stoke::cli {

// Lives as long as the program's main; owns what the verbs' flags write to.
class Context {
 public:
  // A T that lives as long as the context: the place for a verb's options.
  //   auto& options = context.make<RunOptions>();
  template <typename T>
  T& make() {
    kept_.emplace_back(new T(), [](void* object) { delete static_cast<T*>(object); });
    return *static_cast<T*>(kept_.back().get());
  }
  // To be called in a subcommand's callback.
  void run(std::function<int()> action) { action_ = std::move(action); }
  const std::function<int()>& action() const { return action_; }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> kept_;
  std::function<int()> action_;
};

void add_run(CLI::App& app, Context& context);
void add_chat(CLI::App& app, Context& context);
void add_ppl(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_tokenize(CLI::App& app, Context& context);
void add_pull(CLI::App& app, Context& context);
void add_list(CLI::App& app, Context& context);
void add_profile(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_synth(CLI::App& app, Context& context);
void add_convert(CLI::App& app, Context& context);

// Prints "stoke: <message>" as one line on stderr. Returns 1, the exit status.
int fail(const Status& status);
// The same for wrong usage, with the verb whose --help says more, where one is known. Returns 2.
int fail_usage(const std::string& message, const std::string& verb = "");

// A CLI11 check and transform: "512M", "2G", "1048576" become plain byte counts (K M G T: powers of 1024).
//   app.add_option("--memory", options.memory)->transform(as_size());
CLI::Validator as_size();
// A check: a whole number, `least` or more.
CLI::Validator at_least(int64_t least, int64_t most = INT64_MAX);
// `most` for counts that are added up: sums of a few stay far from overflow.
inline constexpr int64_t kCountMost = int64_t{1} << 40;
// Parses the same; kInvalid says what was wrong.
Result<int64_t> parse_size(const std::string& text);
// 1536 -> "1.5 KiB".
std::string format_size(int64_t bytes);
// 1, "token" -> "1 token"; 2 -> "2 tokens".
std::string counted(int64_t count, const std::string& what);

// True when the descriptor (1, 2) is a terminal.
bool is_terminal(int descriptor);

// MODEL as the user gave it: a path stays; a short name known to `stoke pull` becomes the path where pull puts it, or
// fails with kNotFound saying `stoke pull NAME` when it was not fetched yet. What is no path and no name known to pull
// fails with kNotFound and the names that begin alike. Defined in catalogue.cc.
Result<std::string> resolve_model(const std::string& name_or_path);

}  // namespace stoke::cli
