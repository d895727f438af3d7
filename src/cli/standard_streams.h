// The three streams that a program expects to have.
//
// Thread role: main thread, before anything else. Errors: none; whatever is missing stays unusable, as it was.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace stoke::cli {

// Puts something at descriptors 0, 1 and 2 where the caller closed them: the first files opened would take these
// numbers, so that a model were read as the prompt and an answer written into a trace. Standard input is empty then;
// what is written to the others fails, as on a closed one.
void fill_standard_streams();

// To standard error; a message that cannot be written (a full disk, a closed pipe) is no failure of the work.
template <typename... Args>
void tell(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace stoke::cli
