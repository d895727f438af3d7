// stoke: language models on the processor. One file per verb; see verbs.h.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>

#include "cli/verbs.h"
#include "stoke/stoke.h"

namespace {

int parse_and_run(int argc, char** argv) {
  stoke::cli::Context context;
  CLI::App app("stoke: runs language models, also those bigger than memory", "stoke");
  app.set_version_flag("--version", std::string("stoke ") + stoke::version());
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  for (const auto add : {stoke::cli::add_run, stoke::cli::add_chat, stoke::cli::add_ppl, stoke::cli::add_bench,
                         stoke::cli::add_inspect, stoke::cli::add_tokenize, stoke::cli::add_pull, stoke::cli::add_synth,
                         stoke::cli::add_convert, stoke::cli::add_profile, stoke::cli::add_doctor}) {
    add(app, context);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    return stoke::cli::fail_usage(error.what());
  }
  const int status = context.action()();
  // A full disk or a closed pipe behind standard output is a failure like any other.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    return stoke::cli::fail({stoke::Code::kIo, "standard output: the result could not be written"});
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of its write, with a name
  try {
    return parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    return stoke::cli::fail({stoke::Code::kNoMemory, "out of memory: try a smaller --ctx or --batch"});
  } catch (const std::exception& error) {
    return stoke::cli::fail({stoke::Code::kInvalid, std::string("unexpected failure: ") + error.what()});
  }
}
