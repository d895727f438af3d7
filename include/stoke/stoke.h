// stoke: language models on the processor, as a library.
//
//   auto model = stoke::Model::open("model.gguf", {});           // Result<std::unique_ptr<Model>>
//   auto session = (*model)->new_session();                      // one sequence of tokens
//   (*session)->prefill(*(*model)->tokenizer().encode("Once upon a time"));
//   (*session)->generate({.max_tokens = 64}, [](const stoke::TokenEvent& e) { fwrite(...e.text...); return true; });
//
// Thread role: a Model and all its Sessions are used by one thread at a time; only the cancel flags may be set from
// other threads or signal handlers. The threads that compute are the model's own.
// Ownership: the Model outlives its Sessions. Views that are returned stay valid until the next call on that object.
// Errors: Status and Result; nothing is thrown, printed or exited.
// Memory: everything is taken by open(): weights, KV pages for `sequences` full contexts, activations of a batch.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoke/sampling.h"
#include "stoke/status.h"

namespace stoke {

// Set to true by anyone to stop what is under way at the next token or layer. Never cleared by stoke.
using CancelFlag = std::atomic<bool>;

// Loading goes from 0 to 1.
// Called by open() and, where weights arrive behind it, by the passes that wait for them; the last call says 1.
using ProgressCallback = std::function<void(double fraction)>;

// What a model that streams its weights is doing, counted since open() or reset_stats().
struct Activity {
  double seconds = 0;         // since open()
  int64_t prompt_tokens = 0;  // computed so far, also of a prompt under way
  int64_t generated_tokens = 0;
  int64_t bytes_read = 0;
  double cache_hit_rate = -1;  // as in Stats
  int64_t memory_bytes = 0;    // held now
  int64_t budget_bytes = 0;
};
// Called by the passes of such a model, on the thread that called them and about four times a second, for whoever shows
// what goes on. It may not call the model.
using ActivityCallback = std::function<void(const Activity&)>;

class Tokenizer;

struct ModelOptions {
  int64_t memory_bytes = 0;  // bound on all that the process holds; 0: what machine and cgroup leave free
  int64_t context = 0;       // tokens a session may reach; 0: 4096 or the model's, whichever is less
  // The tokens that will be needed at least, asked during open() before memory is laid out: the moment to tokenize a
  // long text, which takes up to hundreds of bytes a byte. Where `context` is 0 and the default does not fit, it is
  // halved until it does, but not below that, and MemoryReport::context says so. Empty: such a model is refused.
  std::function<Result<int64_t>(const Tokenizer&)> context_needed;
  int threads = 0;      // 0: the physical cores that this process may use
  int64_t batch = 0;    // prompt tokens computed together; 0: 512
  int sequences = 1;    // sessions that may all reach a full context at once
  std::string isa;      // instruction set: "portable", "avx2", "avx512", ...; empty: the best here
  std::string kv_type;  // "f16" (default) or "q8_0"
  std::string ffn_act;  // the FFN's activation, of a model that does not say: "silu", "relu", "drelu", ...
  std::string quant;    // quantises F16/BF16/F32 matrices on load: "q8_0", "q4_0", "q4_k"; empty: as stored
  // For measurements on neuron stores (docs/bigger-than-memory.md); neither changes a bit of the answer.
  // ablation: a step of the paper's ablation, or another engine's way: "dense", ..., "flash"; empty: all on.
  std::string ablation;
  // firings: a file for the neurons that fire, or the experts chosen, token by token (pipeline/firing_log.h).
  std::string firings;
  ProgressCallback progress;
  ActivityCallback activity;
  const CancelFlag* cancel = nullptr;
  // A Chrome trace of passes, layers, workers and reads is written there when the model closes; empty: none.
  std::string trace_path;
  int64_t trace_events = 65536;  // kept for each thread and for reads, 40 bytes each; the oldest go first
};

struct ModelInfo {
  std::string path;
  std::string name;          // what the file calls itself, or the last part of the path
  std::string architecture;  // "llama", "qwen3", ...
  std::string quantization;  // "Q4_1", or the type that holds most bytes
  int64_t parameters = 0;
  int64_t layers = 0;
  int64_t vocabulary = 0;
  int64_t context_length = 0;  // what the model was made for
  bool has_chat_template = false;
};

// How fast a model that is bigger than its memory will decode, from what it reads and from what disk and memory give.
// Bounds: nothing but reading and going through the weights is counted, side by side.
struct Forecast {
  double tokens_per_s = 0;       // 0: not known. Where a token chooses weights: if all are chosen equally often
  double tokens_per_s_best = 0;  // if all that is chosen is in memory; 0: not known; otherwise the same
  int64_t bytes_per_token = 0;   // read for the first of these
  double disk_bytes_per_s = 0;   // of large reads
  double dram_bytes_per_s = 0;   // 0: not measured
  std::string source;            // of the rates: "stoke profile", "a trial read"
  std::string text;              // half a sentence for people, with what it assumes
};

// Bytes that the model takes, by purpose.
struct MemoryReport {
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t activations = 0;  // with scratch and logits
  int64_t text = 0;         // tokenizer and template
  int64_t process = 0;      // what the process held before
  int64_t total = 0;
  int64_t budget = 0;         // the bound that total was held against
  std::string budget_source;  // how it was found: "--memory", "cgroup", "free memory"
  // Where the model does not fit whole: one line that says what of it is read from disk, and what that costs.
  std::string streaming;
  std::string context;  // where the context is shorter than the default to fit: one line that says so
  std::string advice;   // where the budget is near the least that runs: what that costs, and what would help
  Forecast forecast;    // where the model is streamed
};

// What a model file needs to run, known without loading it.
struct Fit {
  ModelInfo info;
  int64_t weights_bytes = 0;
  int64_t memory_min_bytes = 0;   // the least that runs it at the given context
  int64_t memory_full_bytes = 0;  // all in memory at the given context
  int64_t context = 0;            // that context
  MemoryReport report;            // of the full need, against the memory there is here
  bool fits = false;              // memory_full_bytes <= report.budget
  std::string advice;             // one line: how well it fits, and what would help
  struct TypeShare {
    std::string type;
    int64_t tensors = 0;
    int64_t bytes = 0;
  };
  std::vector<TypeShare> types;  // most bytes first
  int64_t files = 0;
  int64_t experts = 0;  // 0: dense
  int64_t experts_used = 0;
  int64_t width = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  std::string activation;
  std::string store;  // of a neuron store: layout and encodings, in words; otherwise empty
};

// Reads headers only; and, where the model is bigger than its memory and its disk has no kept profile, tries some
// reads.
Result<Fit> inspect(const std::string& path, const ModelOptions& options);

struct TokenizeOptions {
  bool bos = true;       // add the model's BOS where it asks for one
  bool special = false;  // text that spells a special token becomes that token; otherwise it stays text
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

struct ChatOptions {
  bool add_generation_prompt = true;
  std::string extra_json;  // further template variables as one JSON object, e.g. {"enable_thinking":false}
};

// Text to tokens and back, and the model's chat template.
class Tokenizer {
 public:
  // Of a model file or folder, without loading its weights.
  static Result<std::unique_ptr<Tokenizer>> open(const std::string& path);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // kNoMemory: the model's budget leaves too little for a text of this length.
  Result<std::vector<int32_t>> encode(std::string_view text, const TokenizeOptions& options = {}) const;
  // Special tokens are left out unless asked for. Invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const int32_t> tokens, bool special = false) const;
  bool is_eos(int32_t token) const;  // any token that ends a text or a turn
  int32_t bos() const;               // -1: the model has none
  bool adds_bos() const;             // the model asks for a BOS before a text
  int64_t vocabulary() const;
  bool has_chat_template() const;
  Result<std::string> apply_chat_template(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;
  // The template applied and tokenized: special tokens of the template become tokens, those in messages stay text.
  Result<std::vector<int32_t>> encode_chat(std::span<const ChatMessage> messages,
                                           const ChatOptions& options = {}) const;

  struct Impl;  // the library's own
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  const Impl& impl() const { return *impl_; }
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// One generated token.
struct TokenEvent {
  int32_t id = 0;                 // -1: no token, only text that had been held back, at the end
  std::string_view text;          // whole UTF-8 characters that became complete with it; may be empty
  std::span<const float> logits;  // (vocabulary) that it was chosen from; empty at the end
};
// False stops the generation.
using TokenCallback = std::function<bool(const TokenEvent&)>;

enum class StopReason { kEos, kLength, kContext, kStop, kCancelled, kCallback };
// "eos", "length", "context", "stop", "cancelled", "callback".
const char* name(StopReason reason);

struct GenerateOptions {
  int64_t max_tokens = -1;  // -1: until the context is full
  SamplingOptions sampling;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // texts that end the generation; not part of the result
  bool hash_logits = false;       // fill Generation::logits_hash (costs a pass over the logits a token)
  const CancelFlag* cancel = nullptr;
};

struct Generation {
  std::vector<int32_t> tokens;  // without the end-of-text token
  std::string text;
  StopReason stop_reason = StopReason::kLength;
  uint64_t logits_hash = 0;  // XXH3-64 over the FP32 logits of every generated position, in order
};

// What happened since open() or reset_stats(). Rates are 0 where nothing was measured; shares and recall are negative
// where they have no meaning (no streaming, no sparsity).
struct Stats {
  std::string model;
  int threads = 0;
  std::string isa;
  double load_s = 0;                 // until prefill could start; weights may still be arriving behind it
  double time_to_first_token_s = 0;  // of the last generation: prefill and the choice of its first token
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;
  double token_s_p50 = 0;
  double token_s_p90 = 0;
  double token_s_p99 = 0;
  double token_s_mean = 0;
  int64_t budget_bytes = 0;
  int64_t peak_rss_bytes = 0;    // anonymous and locked, measured
  int64_t page_cache_bytes = 0;  // charged by our reads
  int64_t bytes_read = 0;        // from flash, measured
  double bytes_read_per_token = 0;
  int64_t reads = 0;
  double reads_per_token = 0;
  double cache_hit_rate = -1;
  double io_stall_share = 0;
  double active_neuron_share = -1;
  double predictor_recall = -1;
  std::string budget_source;         // how the budget was found, as in MemoryReport
  std::string reader;                // what reads weights while the model runs: "io_uring", "threads"; empty: nothing
  double read_bytes_per_s = 0;       // while decoding, or, before that, while the prompt was computed
  double forecast_tokens_per_s = 0;  // Forecast::tokens_per_s
  double weights_loaded_s = 0;       // until the last weight was in memory
  int64_t prompt_tokens = 0;         // prefilled
  int64_t generated_tokens = 0;      // decoded
  std::string ablation;              // of neuron stores: the step that runs, "hot" where nothing is switched off
  int64_t cache_slots = 0;  // records of a streamed neuron store, or whole experts, that the cache holds at most
};

class Session;

class Model {
 public:
  // `path`: a .gguf file (first of a split one too) or a Hugging Face folder.
  // Fails with kNoMemory, before anything is loaded, when it does not fit: the text says how much is needed, how much
  // there is, and what would fit.
  static Result<std::unique_ptr<Model>> open(const std::string& path, const ModelOptions& options);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelInfo& info() const;
  const MemoryReport& memory() const;
  int64_t context() const;  // tokens a session may reach
  int64_t batch() const;
  int threads() const;

  const Tokenizer& tokenizer() const;

  // Waits until the weights that arrive behind open() are all there, so that nothing loads beside what is measured; at
  // once where they stream. Fails as a pass would that needed the missing ones.
  Status finish_loading();

  Result<std::unique_ptr<Session>> new_session();
  // One token appended to each of several sessions in one pass: the weights are read once. sessions and tokens have the
  // same length, at most batch(). Afterwards each session's logits() are those after its token.
  Status decode(std::span<Session* const> sessions, std::span<const int32_t> tokens);

  Stats stats() const;
  void reset_stats();  // keeps load_s and the peaks
  // Writes the trace now and ends it, so that a failure can be told; closing the model would write it, too. Does
  // nothing where there is none.
  Status write_trace();

  struct Impl;  // the library's own
  explicit Model(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

// One sequence of tokens and its KV.
class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Appends tokens. Fails with kContextFull, having computed nothing, when they do not fit; with kCancelled between
  // batches (what was computed stays).
  Status prefill(std::span<const int32_t> tokens, const CancelFlag* cancel = nullptr);
  // As prefill, and shows the logits after each of these tokens from index `first` on, in order.
  using LogitsCallback = std::function<void(int64_t index, std::span<const float> logits)>;
  Status score(std::span<const int32_t> tokens, int64_t first, const LogitsCallback& callback,
               const CancelFlag* cancel = nullptr);
  // Chooses and appends tokens until something stops it. Requires: at least one token was prefilled.
  // The last chosen token is reported, and becomes part of the sequence when the generation goes on.
  Result<Generation> generate(const GenerateOptions& options, const TokenCallback& callback = nullptr);

  std::span<const int32_t> tokens() const;  // of the whole sequence
  std::span<const float> logits() const;    // (vocabulary) after the last token; empty for a fresh or truncated one
  int64_t length() const;

  // A second sequence that shares this one's KV pages until either is changed.
  Result<std::unique_ptr<Session>> fork() const;
  // Drops tokens from the end. The next prefill continues from there.
  void truncate(int64_t length);
  // Drops what does not agree with `tokens`, then appends the rest: reuse of a common beginning.
  Status extend_to(std::span<const int32_t> tokens, const CancelFlag* cancel = nullptr);

  struct Impl;  // the library's own
  explicit Session(std::unique_ptr<Impl> impl);
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// "0.1.0".
const char* version();

}  // namespace stoke
