// stoke: language models on the processor. One file per verb; see verbs.h.
#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/standard_streams.h"
#include "cli/verbs.h"
#include "stoke/stoke.h"

namespace {

std::string verbs_of(const CLI::App& app) {
  std::string names;
  for (const CLI::App* verb : app.get_subcommands({})) names += (names.empty() ? "" : ", ") + verb->get_name();
  return names;
}

bool is_verb(const CLI::App& app, const std::string& name) {
  return !app.get_subcommands([&](const CLI::App* verb) { return verb->get_name() == name; }).empty();
}

// `stoke help` is --help, and `stoke help VERB` is VERB --help.
std::vector<std::string> without_help_verb(std::vector<std::string> words) {
  if (words.empty() || words[0] != "help") return words;
  words.erase(words.begin());
  words.resize(std::min<size_t>(words.size(), 1));
  words.emplace_back("--help");
  return words;
}

// CLI11's words where they are good, and others where MODEL or a text may come with a flag or without.
std::string wording(const CLI::App& verb, const CLI::ParseError& error) {
  std::string text = error.what();
  if (text == "--model is required") return "MODEL is required";
  const std::string name = text.substr(0, text.find(':'));
  const CLI::Option* option = name.starts_with("--") ? verb.get_option_no_throw(name) : nullptr;
  if (option == nullptr || error.get_exit_code() != static_cast<int>(CLI::ExitCodes::ArgumentMismatch)) return text;
  if (option->count() <= 1) return text;
  return name + " is given more than once" + (option->get_positional() ? ", perhaps also without the flag" : "");
}

// What CLI11 found wrong, as one line about the verb it belongs to.
int report(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) return stoke::cli::fail_usage(error.what());
  const CLI::App& verb = *chosen.front();
  if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::ExtrasError)) {
    return stoke::cli::fail_usage(wording(verb, error), verb.get_name());
  }
  std::string extras;
  for (const std::string& word : verb.remaining()) extras += " " + word;
  return stoke::cli::fail_usage("not expected:" + extras, verb.get_name());
}

int parse_and_run(int argc, char** argv) {
  stoke::cli::Context context;
  CLI::App app("stoke: runs language models, also those bigger than memory", "stoke");
  app.set_version_flag("--version", std::string("stoke ") + stoke::version());
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  for (const auto add :
       {stoke::cli::add_run, stoke::cli::add_chat, stoke::cli::add_ppl, stoke::cli::add_bench, stoke::cli::add_inspect,
        stoke::cli::add_tokenize, stoke::cli::add_pull, stoke::cli::add_list, stoke::cli::add_synth,
        stoke::cli::add_convert, stoke::cli::add_profile, stoke::cli::add_doctor}) {
    add(app, context);
  }
  const std::vector<std::string> words = without_help_verb({argv + std::min(argc, 1), argv + argc});
  if (words.empty()) return stoke::cli::fail_usage("which command? There are " + verbs_of(app));
  if (!words[0].starts_with('-') && !is_verb(app, words[0])) {
    return stoke::cli::fail_usage(fmt::format("unknown command '{}': there are {}", words[0], verbs_of(app)));
  }
  std::vector<const char*> arguments = {"stoke"};
  for (const std::string& word : words) arguments.push_back(word.c_str());
  try {
    app.parse(static_cast<int>(arguments.size()), arguments.data());
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    return report(app, error);
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
  stoke::cli::fill_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of its write, with a name
  try {
    return parse_and_run(argc, argv);
  } catch (const std::bad_alloc&) {
    return stoke::cli::fail({stoke::Code::kNoMemory, "out of memory: try a smaller --ctx or --batch"});
  } catch (const std::exception& error) {
    return stoke::cli::fail({stoke::Code::kInvalid, std::string("unexpected failure: ") + error.what()});
  }
}
