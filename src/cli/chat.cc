// stoke chat: a conversation on a terminal (or from a pipe: one message a line).
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "cli/flags.h"
#include "cli/line_reader.h"
#include "cli/output.h"
#include "cli/standard_streams.h"
#include "cli/think_filter.h"
#include "sys/files.h"

namespace stoke::cli {
namespace {

constexpr const char* kHelp =
    "/help          this text\n"
    "/reset         forget the conversation\n"
    "/system TEXT   set the system message and forget the conversation; without TEXT show it, \"\" for none\n"
    "/save FILE     write the conversation as JSON\n"
    "/stats         what the model did so far\n"
    "/exit, /bye    leave (Ctrl-D, too)\n"
    "A trailing backslash continues on the next line; \"\"\" begins and ends a message of several lines.\n"
    "Ctrl-C stops an answer.\n"
    "What you type on a terminal is kept in ~/.local/state/stoke/history, for the arrow keys; STOKE_HISTORY names "
    "another\n"
    "file, or, empty, none.\n";

// Tokens below which a conversation is none, where memory is too scarce for the default.
constexpr int64_t kLeastContext = 512;

struct ChatFlags {
  ModelFlags model;
  SamplingFlags sampling;
  OutputFlags output;
  std::string system;
};

// What STOKE_HISTORY names, else ~/.local/state/stoke/history. Empty, for none, where the variable is set and empty,
// and where there is no home.
std::string history_file() {
  if (const char* named = std::getenv("STOKE_HISTORY")) return named;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::string folder;
  if (state != nullptr && *state != 0)
    folder = state;
  else if (home != nullptr && *home != 0)
    folder = std::string(home) + "/.local/state";
  if (folder.empty() || !sys::make_folders(folder + "/stoke").ok()) return "";
  return folder + "/stoke/history";
}

// Without blanks at either end.
std::string trimmed(const std::string& text) {
  constexpr const char* kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

// That a command was done. On standard error: a pipe's standard output is answers.
template <typename... Values>
void confirm(fmt::format_string<Values...> format, Values&&... values) {
  tell("stoke: {}\n", fmt::format(format, std::forward<Values>(values)...));
}

class Chat {
 public:
  Chat(Model& model, Session& session, GenerateOptions generate, std::string system, Interrupt& interrupt,
       LiveLine& live)
      : model_(model),
        session_(session),
        generate_(std::move(generate)),
        system_(std::move(system)),
        interrupt_(interrupt),
        live_(live),
        terminal_(is_terminal(1)) {
    generate_.cancel = &interrupt_.flag();
    reset();
  }

  // Until /exit or the end of input. Returns the exit status.
  int talk(LineReader& reader) {
    std::string input;
    for (;;) {
      interrupt_.clear();
      const LineReader::End end = reader.read(&input);
      if (end == LineReader::End::kEof) break;
      if (end == LineReader::End::kInterrupted) {
        if (terminal_) fmt::print("\n(Ctrl-D or /exit leaves)\n");
        continue;
      }
      if (trimmed(input).empty()) continue;
      if (input[0] == '/') {
        if (!command(input)) break;
        continue;
      }
      const Status answered = answer(input);
      if (answered.ok()) continue;
      fail(answered);
      if (!terminal_) return 1;
    }
    if (terminal_) fmt::print("\n");
    return 0;
  }

 private:
  void reset() {
    messages_.clear();
    session_.truncate(0);
    if (!system_.empty()) messages_.push_back({"system", system_});
  }

  // False to leave.
  bool command(const std::string& input) {
    const size_t blank = input.find_first_of(" \t\n");
    const std::string verb = input.substr(0, blank);
    const std::string rest = blank == std::string::npos ? "" : trimmed(input.substr(blank));
    if (verb == "/exit" || verb == "/quit" || verb == "/bye") return false;
    if (verb == "/help") {
      fmt::print("{}", kHelp);
    } else if (verb == "/reset") {
      reset();
      confirm("the conversation is forgotten{}", system_.empty() ? "" : ", the system message stays");
    } else if (verb == "/system") {
      set_system(rest);
    } else if (verb == "/stats") {
      fmt::print("{}\ncontext: {} of {} tokens\n", stats_line(model_.stats()), session_.length(), model_.context());
    } else if (verb == "/save") {
      const Status saved = save(rest);
      if (!saved.ok()) fail(saved);
    } else {
      fmt::print("no such command: {} (/help lists them)\n", verb);
    }
    std::fflush(stdout);
    return true;
  }

  // A slip of the finger, /system alone, must not cost the conversation: it shows what there is.
  void set_system(const std::string& text) {
    if (text.empty()) {
      fmt::print("{}\n", system_.empty() ? "(there is no system message)" : system_);
      return;
    }
    system_ = text == "\"\"" ? "" : text;
    reset();
    confirm("{}; the conversation begins anew", system_.empty() ? "no system message" : "the system message is set");
  }

  Status save(const std::string& path) const {
    if (path.empty()) return Status(Code::kInvalid, "/save needs a file name");
    std::error_code error;
    const bool replaces = std::filesystem::exists(path, error);
    Json list = Json::array();
    for (const ChatMessage& message : messages_) list.push_back({{"role", message.role}, {"content", message.content}});
    const Json document{{"model", model_.info().name}, {"messages", list}};
    STOKE_TRY(sys::write_file_atomic(path, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"));
    confirm("{} messages saved to {}{}", messages_.size(), path, replaces ? ", which was there and is replaced" : "");
    return Status();
  }

  Status answer(const std::string& input) {
    messages_.push_back({"user", input});
    Status done = generate_answer();
    // A message that got no answer is not part of the conversation.
    if (!done.ok()) messages_.pop_back();
    return done;
  }

  Status generate_answer() {
    auto tokens = model_.tokenizer().encode_chat(messages_);
    if (!tokens.ok()) return tokens.status();
    live_.begin();
    Status prefilled = session_.extend_to(*tokens, &interrupt_.flag());
    prefilled.ok() ? live_.text_follows() : live_.end();
    if (!prefilled.ok()) {
      if (prefilled.code() != Code::kContextFull) return prefilled;
      return Status(Code::kContextFull, "the conversation does not fit into the context any more: /reset, or -c");
    }
    const std::string tail =
        model_.tokenizer().decode(std::span(*tokens).last(std::min<size_t>(4, tokens->size())), true);
    const bool thinking = tail.find("<think>") != std::string::npos && tail.find("</think>") == std::string::npos;
    ThinkFilter filter(terminal_ ? "\033[2m" : "", terminal_ ? "\033[0m" : "", thinking);
    auto generated =
        session_.generate(generate_, [&](const TokenEvent& event) { return show(filter.push(event.text)); });
    live_.end();
    show(filter.finish() + "\n");
    if (!generated.ok()) return generated.status();
    ++generate_.sampling.seed;  // the same question twice need not get the same answer
    if (terminal_ && generated->stop_reason == StopReason::kContext) fmt::print("(the context is full)\n");
    messages_.push_back({"assistant", generated->text});
    return Status();
  }

  static bool show(const std::string& text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  }

  Model& model_;
  Session& session_;
  GenerateOptions generate_;
  std::string system_;
  Interrupt& interrupt_;
  LiveLine& live_;
  const bool terminal_;
  std::vector<ChatMessage> messages_;
};

int run(const ChatFlags& flags) {
  Interrupt interrupt;
  LiveLine live(flags.output.quiet, true);
  const auto needed = [](const Tokenizer&) -> Result<int64_t> { return kLeastContext; };
  auto opened = open_model(flags.model, flags.output, interrupt, {.live = &live, .context_needed = needed});
  if (!opened.ok()) return interrupt.raised() ? interrupt.exit_status() : fail(opened.status());
  Model& model = **opened;
  if (!model.tokenizer().has_chat_template()) {
    return fail({Code::kUnsupported, "the model has no chat template: use stoke run for plain prompts"});
  }
  auto generate = generate_options(flags.sampling, model.tokenizer());
  if (!generate.ok()) return fail_usage(generate.status().message());
  auto session = model.new_session();
  if (!session.ok()) return fail(session.status());
  LineReader reader(history_file());
  if (is_terminal(0) && !flags.output.quiet) fmt::print("{}: /help lists commands\n", model.info().name);
  const int status = Chat(model, **session, *generate, flags.system, interrupt, live).talk(reader);
  if (flags.output.stats) tell("{}\n", stats_line(model.stats()));
  return close_trace(model, status);
}

}  // namespace

void add_chat(CLI::App& app, Context& context) {
  auto& flags = context.make<ChatFlags>();
  auto* verb = app.add_subcommand("chat", "talk with a model on the terminal");
  add_model_flags(*verb, flags.model);
  verb->add_option("--system", flags.system, "the system message");
  add_sampling_flags(*verb, flags.sampling);
  verb->add_flag("--stats", flags.output.stats, "one line of statistics on standard error at the end");
  verb->add_flag("-q,--quiet", flags.output.quiet, "no greeting");
  verb->add_flag("-v,--verbose", flags.output.verbose, "say what was loaded and where the memory goes");
  add_trace_flag(*verb, flags.output);
  verb->callback([&] { context.run([&flags] { return run(flags); }); });
}

}  // namespace stoke::cli
