// Completes a text, greedily: complete MODEL TEXT
#include <cstdio>

#include "stoke/stoke.h"

namespace {

int fail(const stoke::Status& status) {
  std::fprintf(stderr, "complete: %s\n", status.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  auto model = stoke::Model::open(argv[1], {});
  if (!model.ok()) return fail(model.status());
  auto session = (*model)->new_session();
  if (!session.ok()) return fail(session.status());
  auto tokens = (*model)->tokenizer().encode(argv[2]);
  if (!tokens.ok()) return fail(tokens.status());
  const stoke::Status prefilled = (*session)->prefill(*tokens);
  if (!prefilled.ok()) return fail(prefilled);

  stoke::GenerateOptions options;
  options.max_tokens = 32;
  options.sampling.temperature = 0;
  auto done = (*session)->generate(options, [](const stoke::TokenEvent& event) {
    std::fwrite(event.text.data(), 1, event.text.size(), stdout);
    return std::fflush(stdout) == 0;
  });
  if (!done.ok()) return fail(done.status());
  std::puts("");
  return 0;
}
