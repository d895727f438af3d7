#include "cli/line_reader.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cli/verbs.h"

namespace stoke::cli {

struct LineReader::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  std::string history_file;
  bool more = false;  // inside a multi-line input

  static const char* prompt(EditLine* line) {
    void* self = nullptr;
    el_get(line, EL_CLIENTDATA, &self);
    return static_cast<Editor*>(self)->more ? ". " : "> ";
  }
};

LineReader::LineReader(const std::string& history_file) {
  if (!is_terminal(0) || !is_terminal(1)) return;
  constexpr int kHistoryLines = 1000;
  std::setlocale(LC_CTYPE, "");  // libedit counts columns of multi-byte characters by it
  editor_ = std::make_unique<Editor>();
  editor_->history_file = history_file;
  editor_->line = el_init("stoke", stdin, stdout, stderr);
  editor_->history = history_init();
  HistEvent event;
  history(editor_->history, &event, H_SETSIZE, kHistoryLines);
  history(editor_->history, &event, H_SETUNIQUE, 1);
  if (!history_file.empty()) history(editor_->history, &event, H_LOAD, history_file.c_str());
  el_set(editor_->line, EL_CLIENTDATA, editor_.get());
  el_set(editor_->line, EL_PROMPT, &Editor::prompt);
  el_set(editor_->line, EL_EDITOR, "emacs");
  el_set(editor_->line, EL_HIST, history, editor_->history);
  el_set(editor_->line, EL_SIGNAL, 0);
  el_source(editor_->line, nullptr);  // the user's ~/.editrc
}

LineReader::~LineReader() {
  if (editor_ == nullptr) return;
  HistEvent event;
  if (!editor_->history_file.empty()) history(editor_->history, &event, H_SAVE, editor_->history_file.c_str());
  history_end(editor_->history);
  el_end(editor_->line);
}

LineReader::End LineReader::read_line(bool more, std::string* line) {
  line->clear();
  if (editor_ != nullptr) {
    editor_->more = more;
    int count = 0;
    const char* text = el_gets(editor_->line, &count);
    if (text == nullptr || count <= 0) return count < 0 && errno == EINTR ? End::kInterrupted : End::kEof;
    line->assign(text, static_cast<size_t>(count));
  } else {
    char* text = nullptr;
    size_t capacity = 0;
    const ssize_t count = getline(&text, &capacity, stdin);
    if (count > 0) line->assign(text, static_cast<size_t>(count));
    const bool interrupted = count < 0 && errno == EINTR;
    std::free(text);
    if (count <= 0) return interrupted ? End::kInterrupted : End::kEof;
  }
  if (line->ends_with('\n')) line->pop_back();
  return End::kLine;
}

namespace {

constexpr std::string_view kFence = "\"\"\"";

// Takes the fence off the end of a line, blanks after it included.
bool close_block(std::string* line) {
  const size_t last = line->find_last_not_of(" \t\r");
  const std::string_view text = std::string_view(*line).substr(0, last == std::string::npos ? 0 : last + 1);
  if (!text.ends_with(kFence)) return false;
  line->resize(text.size() - kFence.size());
  return true;
}

}  // namespace

LineReader::End LineReader::read(std::string* input) {
  input->clear();
  std::string line;
  bool fenced = false;
  for (bool more = false;; more = true) {
    const End end = read_line(more, &line);
    if (end == End::kEof && !input->empty()) break;
    if (end != End::kLine) return end;
    const bool opens = !more && line.starts_with(kFence);
    if (opens) line.erase(0, kFence.size());
    fenced = fenced || opens;
    const bool closes = fenced && close_block(&line);
    const bool goes_on = !fenced && line.ends_with('\\');
    if (goes_on) line.pop_back();
    *input += line;
    if (closes || (!fenced && !goes_on)) break;
    // Nothing beside the opening fence is no line.
    if (!opens || !line.empty()) *input += '\n';
  }
  if (fenced && input->ends_with('\n')) input->pop_back();
  if (editor_ != nullptr && !input->empty()) {
    HistEvent event;
    history(editor_->history, &event, H_ENTER, input->c_str());
  }
  return End::kLine;
}

}  // namespace stoke::cli
