/* stoke for C: the same engine as stoke.h, in plain types.
 *
 * Every function that can fail returns a stoke_code (STOKE_OK is 0); stoke_last_error() then gives one line for this
 * thread that says what, where and what to do. Objects are freed with their _free function; a model after its sessions.
 * Thread role: a model and its sessions are used by one thread at a time; stoke_session_cancel from any, also from a
 * signal handler. Strings are UTF-8. Sizes are bytes; 0 in an option means its default. */
#ifndef STOKE_STOKE_C_H_
#define STOKE_STOKE_C_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum stoke_code {
  STOKE_OK = 0,
  STOKE_INVALID,
  STOKE_NOT_FOUND,
  STOKE_IO,
  STOKE_CORRUPT,
  STOKE_UNSUPPORTED,
  STOKE_NO_MEMORY,
  STOKE_NO_SPACE,
  STOKE_CONTEXT_FULL,
  STOKE_CANCELLED
} stoke_code;

typedef enum stoke_stop {
  STOKE_STOP_EOS = 0,
  STOKE_STOP_LENGTH,
  STOKE_STOP_CONTEXT,
  STOKE_STOP_TEXT,
  STOKE_STOP_CANCELLED,
  STOKE_STOP_CALLBACK
} stoke_stop;

typedef struct stoke_model stoke_model;
typedef struct stoke_session stoke_session;

typedef struct stoke_model_options {
  int64_t memory_bytes; /* bound on all that the process holds */
  int64_t context;
  int64_t batch;
  int32_t threads;
  int32_t sequences; /* sessions that may all reach a full context at once */
  const char* isa;
  const char* kv_type;
  const char* ffn_act;
  const char* quant;
} stoke_model_options;

/* Sampling fields as in sampling.h; stoke_generate_defaults() fills them. */
typedef struct stoke_generate_options {
  int64_t max_tokens; /* -1: until the context is full */
  uint64_t seed;
  float temperature;
  float top_p;
  float min_p;
  float typical_p;
  float repeat_penalty;
  float frequency_penalty;
  float presence_penalty;
  int32_t top_k;
  int32_t penalty_last_n;
  int32_t ignore_eos;
} stoke_generate_options;

/* `text`: whole UTF-8 characters that became complete with the token, text_bytes of them, not terminated. Returns 0 to
 * stop. */
typedef int (*stoke_token_callback)(void* user, int32_t token, const char* text, size_t text_bytes);

const char* stoke_version(void);
/* Of the last failure on this thread; "" when there was none. Valid until the next call on this thread. */
const char* stoke_last_error(void);

void stoke_model_defaults(stoke_model_options* options);
void stoke_generate_defaults(stoke_generate_options* options);

/* options may be NULL. *model is NULL on failure. */
stoke_code stoke_model_open(const char* path, const stoke_model_options* options, stoke_model** model);
void stoke_model_free(stoke_model* model);
int64_t stoke_model_context(const stoke_model* model);
int64_t stoke_model_vocabulary(const stoke_model* model);

/* Writes at most `capacity` ids and gives the full count in *count; capacity 0 only counts. */
stoke_code stoke_tokenize(const stoke_model* model, const char* text, size_t text_bytes, int32_t* tokens,
                          size_t capacity, size_t* count);
/* One user message (and a system message unless NULL) through the model's chat template, as tokens. */
stoke_code stoke_tokenize_chat(const stoke_model* model, const char* system, const char* user, int32_t* tokens,
                               size_t capacity, size_t* count);

stoke_code stoke_session_new(stoke_model* model, stoke_session** session);
/* A second sequence that shares this one's KV until either is changed. */
stoke_code stoke_session_fork(const stoke_session* session, stoke_session** fork);
void stoke_session_free(stoke_session* session);
stoke_code stoke_session_prefill(stoke_session* session, const int32_t* tokens, size_t count);
/* options, callback and stop may be NULL. */
stoke_code stoke_session_generate(stoke_session* session, const stoke_generate_options* options,
                                  stoke_token_callback callback, void* user, stoke_stop* stop);
/* (stoke_model_vocabulary) after the last token, valid until the next call on the session; NULL when there are none. */
const float* stoke_session_logits(const stoke_session* session);
int64_t stoke_session_length(const stoke_session* session);
void stoke_session_truncate(stoke_session* session, int64_t length);
/* Stops the prefill or generation under way at its next step; the next one starts anew. */
void stoke_session_cancel(stoke_session* session);

#ifdef __cplusplus
}
#endif

#endif
