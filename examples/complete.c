/* The same from C: complete MODEL TEXT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoke/stoke_c.h"

static int show(void* user, int32_t token, const char* text, size_t text_bytes) {
  (void)user, (void)token;
  fwrite(text, 1, text_bytes, stdout);
  return fflush(stdout) == 0;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const char* text = argv[2];
  stoke_model* model = NULL;
  stoke_session* session = NULL;
  stoke_generate_options options;
  stoke_generate_defaults(&options);
  options.max_tokens = 32;
  options.temperature = 0;
  size_t count = 0; /* asked for first, so that there is room for all */
  int failed = stoke_model_open(argv[1], NULL, &model) || stoke_session_new(model, &session) ||
               stoke_tokenize(model, text, strlen(text), NULL, 0, &count);
  int32_t* tokens = calloc(count + 1, sizeof(*tokens));
  failed = failed || !tokens || stoke_tokenize(model, text, strlen(text), tokens, count, &count) ||
           stoke_session_prefill(session, tokens, count) ||
           stoke_session_generate(session, &options, show, NULL, NULL);
  failed ? fprintf(stderr, "complete: %s\n", stoke_last_error()) : puts("");
  free(tokens);
  stoke_session_free(session);
  stoke_model_free(model);
  return failed;
}
