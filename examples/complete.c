/* The same from C: complete MODEL TEXT */
#include <stdio.h>
#include <string.h>

#include "stoke/stoke_c.h"

static int show(void* user, int32_t token, const char* text, size_t text_bytes) {
  (void)user, (void)token;
  fwrite(text, 1, text_bytes, stdout);
  return fflush(stdout) == 0;
}

int main(int argc, char** argv) {
  stoke_model* model = NULL;
  stoke_session* session = NULL;
  stoke_generate_options options;
  int32_t tokens[1024];
  size_t count = 0;
  if (argc != 3) return 2;
  stoke_generate_defaults(&options);
  options.max_tokens = 32;
  options.temperature = 0;
  int failed = stoke_model_open(argv[1], NULL, &model) || stoke_session_new(model, &session) ||
               stoke_tokenize(model, argv[2], strlen(argv[2]), tokens, 1024, &count) ||
               stoke_session_prefill(session, tokens, count < 1024 ? count : 1024) ||
               stoke_session_generate(session, &options, show, NULL, NULL);
  if (failed) fprintf(stderr, "complete: %s\n", stoke_last_error());
  puts("");
  stoke_session_free(session);
  stoke_model_free(model);
  return failed;
}
