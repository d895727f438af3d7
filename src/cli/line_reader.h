// Lines from a person: editing and history (libedit) on a terminal, plain lines otherwise.
//
// Multi-line input: a line that ends with a backslash goes on in the next; a first line that begins with """ opens a
// block, which the first """ at the end of a line closes. What stands beside them belongs to the block. Thread role:
// main thread. Ownership: the terminal's state is restored when it goes.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace stoke::cli {

class LineReader {
 public:
  // `history_file`: kept between runs; empty for none.
  explicit LineReader(const std::string& history_file);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  enum class End { kLine, kInterrupted, kEof };
  // One input, multi-line ones put together, without the last line break. kInterrupted: Ctrl-C was pressed.
  End read(std::string* input);

 private:
  struct Editor;
  End read_line(bool more, std::string* line);

  std::unique_ptr<Editor> editor_;  // null: standard input is no terminal
};

}  // namespace stoke::cli
