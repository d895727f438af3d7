#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/describe.h"
#include "engine/recording_ffn.h"
#include "engine/stream_plan.h"
#include "engine/tokenizer_impl.h"
#include "kernels/quantize.h"
#include "sys/cpu.h"
#include "sys/memory.h"

namespace stoke::engine {
namespace {

constexpr int64_t kDefaultContext = 4096;
constexpr int64_t kDefaultBatch = 512;

Result<const kernels::Kernels*> choose_kernels(const std::string& isa) {
  if (isa.empty()) return &kernels::best();
  if (const kernels::Kernels* found = kernels::find(isa.c_str())) return found;
  std::string known;
  for (const char* const* name = kernels::runnable(); *name != nullptr; ++name) {
    known += (known.empty() ? "" : ", ") + std::string(*name);
  }
  return Status(
      Code::kUnsupported,
      fmt::format("instruction set '{}': not in this build or not on this processor; there are: {}", isa, known));
}

bool can_quantize_on_load(DType type) { return type == DType::kQ8_0 || type == DType::kQ4_0 || type == DType::kQ4_K; }

Result<kv::KvType> parse_kv_type(const std::string& name) {
  if (name.empty() || name == "f16") return kv::KvType::kF16;
  if (name == "q8_0") return kv::KvType::kQ8_0;
  return Status(Code::kInvalid, fmt::format("KV type '{}': f16 and q8_0 are known", name));
}

Result<std::optional<DType>> parse_quant(const std::string& name) {
  if (name.empty()) return std::optional<DType>();
  const DTypeInfo* found = find_dtype(name);
  if (found == nullptr || !can_quantize_on_load(found->type)) {
    return Status(Code::kInvalid, "quantising on load to '" + name + "': q8_0, q4_0 and q4_k are known");
  }
  return std::optional(found->type);
}

Result<SizeRange> size_range(const model::Config& config, const ModelOptions& options) {
  if (options.context < 0 || options.batch < 0 || options.sequences < 1 || options.threads < 0 ||
      options.memory_bytes < 0) {
    return Status(Code::kInvalid,
                  "options: context, batch, threads and memory must not be negative, sequences above 0");
  }
  Sizes sizes;
  const int64_t context = options.context > 0 ? options.context : std::min(kDefaultContext, config.context);
  if (context > config.context) {
    return Status(Code::kInvalid,
                  fmt::format("a context of {} is more than the {} the model was made for", context, config.context));
  }
  sizes.batch = options.batch > 0 ? options.batch : kDefaultBatch;
  sizes.sequences = options.sequences;
  sizes = with_context(sizes, context);
  STOKE_ASSIGN(sizes.kv_type, parse_kv_type(options.kv_type));
  SizeRange range{.wanted = sizes, .least = sizes};
  if (options.batch == 0) range.least = few_tokens(sizes);
  return range;
}

// Null where none is wanted.
Result<std::unique_ptr<sys::Trace>> open_trace(const ModelOptions& options, int workers) {
  if (options.trace_path.empty()) return std::unique_ptr<sys::Trace>();
  if (options.trace_events < 1) return Status(Code::kInvalid, "options: trace_events must be above 0");
  return sys::Trace::open({.path = options.trace_path, .workers = workers, .events = options.trace_events});
}

int64_t held_now() { return static_cast<int64_t>(sys::process_memory().anonymous); }

}  // namespace

int default_threads() { return sys::default_threads(sys::topology()); }

Result<Prepared> prepare(const std::string& path, const ModelOptions& options) {
  Prepared prepared;
  prepared.process_bytes = held_now();
  STOKE_ASSIGN(prepared.file, formats::open_model_file(path));
  LoaderOptions loader{.ffn_act = options.ffn_act};
  STOKE_ASSIGN(loader.quant, parse_quant(options.quant));
  STOKE_ASSIGN(prepared.loaded, plan_model(prepared.file, loader));
  const int64_t before_text = held_now();
  STOKE_ASSIGN(prepared.tokenizer, make_tokenizer(prepared.file));
  sys::trim_heap();  // the vocabulary's lists and JSON: more than a MiB, and chance how much of it
  prepared.text_bytes = std::max<int64_t>(0, held_now() - before_text);
  if (prepared.tokenizer->vocabulary() > prepared.loaded.config.vocab) {
    return Status(Code::kInvalid,
                  fmt::format("{}: the tokenizer knows {} tokens, the model {}: they do not belong together", path,
                              prepared.tokenizer->vocabulary(), prepared.loaded.config.vocab));
  }
  STOKE_ASSIGN(prepared.sizes, size_range(prepared.loaded.config, options));
  prepared.info = describe(prepared);
  return prepared;
}

Engine::Engine(Prepared prepared, std::unique_ptr<sys::Trace> trace, std::unique_ptr<sys::ThreadPool> threads)
    : prepared_(std::move(prepared)), trace_(std::move(trace)), threads_(std::move(threads)) {
  threads_->set_trace(trace_.get());
}

Result<std::unique_ptr<Engine>> Engine::open(const std::string& path, const ModelOptions& options,
                                             std::span<formats::LayerFiring> recorded) {
  const TimePoint start = now();
  STOKE_ASSIGN(const kernels::Kernels* kernels, choose_kernels(options.isa));
  const int workers = options.threads > 0 ? options.threads : default_threads();
  // Before prepare() looks at what the process holds: what the trace takes belongs to the budget.
  STOKE_ASSIGN(std::unique_ptr<sys::Trace> trace, open_trace(options, workers));
  STOKE_ASSIGN(Prepared prepared, prepare(path, options));
  if (trace) trace->set_process("stoke " + prepared.info.name);
  std::unique_ptr<Engine> engine(
      new Engine(std::move(prepared), std::move(trace), std::make_unique<sys::ThreadPool>(workers)));
  engine->start_ = start;
  engine->kernels_ = kernels;
  const sys::TraceSpan span(engine->trace(), 0, sys::TraceKind::kOpen);
  engine->recorded_ = recorded;
  STOKE_TRY(engine->take_memory(options));
  engine->open_s_ = seconds_since(start);
  engine->timings_.sample_memory();
  return engine;
}

Status Engine::open_store(const ModelOptions& options) {
  STOKE_ASSIGN(const Ablation ablation, find_ablation(options.ablation));
  if (!prepared_.loaded.tables.empty()) {
    STOKE_ASSIGN(store_, SparseStore::open(prepared_.file, prepared_.loaded, ablation));
    return options.firings.empty() ? ok_status() : store_->log_firings(options.firings);
  }
  if (!options.firings.empty() && config().moe.experts > 0 && options.ablation.empty()) {
    STOKE_ASSIGN(route_log_, RouteLog::create(options.firings, config()));
  }
  if (options.ablation.empty() && (options.firings.empty() || route_log_)) return ok_status();
  if (options.ablation.empty()) {
    return Status(Code::kInvalid, fmt::format("{}: firings are of neuron stores, which `stoke convert` makes, and of "
                                              "models with experts; this is neither",
                                              prepared_.file.path));
  }
  return Status(
      Code::kInvalid,
      fmt::format("{}: ablation is for neuron stores, which `stoke convert` makes; this is none", prepared_.file.path));
}

Status Engine::take_memory(const ModelOptions& options) {
  STOKE_TRY(open_store(options));
  const Budget budget = find_budget(options.memory_bytes, held_now());
  STOKE_TRY(ask_context(options, budget));
  const ModelSize size = model_size(nullptr);
  if (const std::optional<Sizes> whole = fit_sizes(size, prepared_.sizes, budget)) {
    sizes_ = *whole;
    memory_ = memory_need(size, sizes_);
    STOKE_TRY(open_resident(options));
  } else {
    STOKE_TRY(open_streaming(options, budget));
  }
  // Of later texts; the slack is what a streaming engine keeps for them.
  prepared_.tokenizer->impl().room = kSlackBytes + budget.bytes - memory_.total;
  memory_.budget = budget.bytes;
  memory_.budget_source = budget.source;
  model::WeightSource& source = streaming_ ? static_cast<model::WeightSource&>(streaming_->source()) : *resident_;
  cancellable_ =
      std::make_unique<CancellableSource>(source, resident_.get(), options.progress, ticker(options.activity));
  STOKE_ASSIGN(pool_, kv::KvPool::create(pool_options(config(), sizes_)));
  score_rows_.resize(static_cast<size_t>(kScoreRows * config().vocab));
  transformer_ = std::make_unique<model::Transformer>(
      model::Transformer::Parts{.config = config(),
                                .weights = prepared_.loaded.weights,
                                .source = *cancellable_,
                                .pool = *pool_,
                                .kernels = *kernels_,
                                .threads = *threads_,
                                .make_ffn = [this](model::Multiplier& m) { return make_ffn(m); }},
      model::TransformerOptions{.max_batch = sizes_.batch, .max_context = sizes_.context});
  return ok_status();
}

ModelSize Engine::model_size(pipeline::IoQueue* queue) {
  ModelSize size = prepared_.size(*threads_);
  if (!store_ && recorded_.empty()) return size;
  size.ffn_bytes = [this, queue](int64_t batch) {
    const int64_t recording = recorded_.empty() ? 0 : static_cast<int64_t>(RecordingFfn::bytes(config(), batch));
    if (!store_) return recording + static_cast<int64_t>(model::FullFfn::bytes(config(), batch));
    return recording + store_->ffn_bytes(*kernels_, *threads_, batch, queue);
  };
  return size;
}

std::unique_ptr<model::Ffn> Engine::make_ffn(model::Multiplier& multiplier) {
  const model::Weights& weights = prepared_.loaded.weights;
  std::unique_ptr<model::Ffn> ffn;
  if (store_) {
    ffn = store_->make_ffn(multiplier, sizes_.batch);
  } else {
    auto full = std::make_unique<model::FullFfn>(config(), weights, multiplier, sizes_.batch);
    full->observe(route_log_.get());
    ffn = std::move(full);
  }
  if (recorded_.empty()) return ffn;
  return std::make_unique<RecordingFfn>(RecordingFfn::Parts{config(), weights, multiplier, recorded_}, std::move(ffn),
                                        sizes_.batch);
}

Status Engine::open_resident(const ModelOptions& options) {
  if (store_) STOKE_TRY(store_->hold_all(options.cancel));
  STOKE_ASSIGN(
      resident_,
      ResidentSource::open(prepared_.file, prepared_.loaded.plan,
                           {.conversion = {.dequantize = kernels_->dequantize_row, .quantize = kernels::quantize_row},
                            .checks = store_ ? &store_->matrix_checks() : nullptr,
                            .cancel = options.cancel}));
  return ok_status();
}

Status Engine::open_streaming(const ModelOptions& options, const Budget& budget) {
  const int64_t held = held_now() + kSlackBytes;
  STOKE_ASSIGN(const Streaming::Range range, Streaming::range(stream_request(prepared_)));
  STOKE_ASSIGN(streaming_, Streaming::open(prepared_.file));
  streaming_->trace_to(trace_.get());
  const Streamable model{.prepared = prepared_,
                         .need = {.whole = model_size(nullptr),
                                  .streamed = model_size(&streaming_->queue()),
                                  .held = held,
                                  .least_weights = range.least + (store_ ? store_->least_bytes() : 0)},
                         .range = range,
                         .streaming = *streaming_,
                         .store = store_.get()};
  const bool fits = fit_streaming(prepared_.file.path, model.need, prepared_.sizes, budget).ok();
  if (!fits) allow_shorter_context(options);
  STOKE_ASSIGN(const StreamPlan plan, plan_stream(model, budget));
  sizes_ = plan.sizes;
  few_rows_ = few_tokens(sizes_).batch;
  prompt_bytes_ = plan.prompt_bytes;
  memory_ = plan.need;
  if (!fits) memory_.context = shorter_context(model);
  memory_.weights = budget.bytes - plan.need.total;
  memory_.total = budget.bytes;
  if (store_) STOKE_TRY(store_->cache_in(plan.split, streaming_->files(), streaming_->queue()));
  STOKE_TRY(streaming_->open_source(plan.request));
  // Before anything is read into the arena: a trial's memory is given back before the arena takes as much.
  foresee(model, plan, streaming_->source().table(), budget, &memory_);
  streaming_->source().watch(options.cancel);
  if (store_) streaming_->source().check_against(&store_->matrix_checks());
  streaming_->poll_from(*threads_);
  prompt_room_ = prompt_bytes_;  // a prompt comes first
  make_room_now();
  streaming_->source().start();
  return store_ ? store_->fill(options.cancel) : ok_status();
}

// Before memory is laid out: whoever answers may have to tokenize a long prompt, for which all of the budget is there.
Status Engine::ask_context(const ModelOptions& options, const Budget& budget) {
  if (!options.context_needed) return ok_status();
  const int64_t before = held_now();
  // A short text is let through: whether the model fits is said later, and better.
  prepared_.tokenizer->impl().room = std::max(budget.bytes - before, kSlackBytes);
  STOKE_ASSIGN(const int64_t needed, options.context_needed(tokenizer()));
  context_needed_ = needed;
  sys::trim_heap();
  prepared_.process_bytes += std::max<int64_t>(0, held_now() - before);  // the tokens, kept by who was asked
  return ok_status();
}

void Engine::allow_shorter_context(const ModelOptions& options) {
  if (options.context > 0 || context_needed_ == 0) return;
  Sizes& least = prepared_.sizes.least;
  least = with_context(least, std::clamp<int64_t>(context_needed_, 1, least.context));
}

std::string Engine::shorter_context(const Streamable& model) const {
  const int64_t usual = prepared_.sizes.wanted.context;
  return fmt::format("a context of {} tokens instead of {}, which would need at least {} (-c sets it)", sizes_.context,
                     usual, bytes_text(least_memory(model.need, with_context(prepared_.sizes.least, usual)).total));
}

Status Engine::append(std::span<const int32_t> tokens, std::span<model::SequenceRun> runs,
                      std::span<const int64_t> outputs, const CancelFlag* cancel) {
  CHECK(static_cast<int64_t>(tokens.size()) <= sizes_.batch);
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].pos = pool_->length(runs[i].seq);
    Status reserved = pool_->reserve(runs[i].seq, runs[i].count);
    if (!reserved.ok()) {
      release_reserved(runs.first(i));
      return reserved;
    }
  }
  if (streaming_) make_room(std::ssize(tokens));
  cancellable_->watch(cancel);
  Status done = transformer_->forward({.tokens = tokens, .runs = runs, .outputs = outputs});
  cancellable_->watch(nullptr);
  if (!done.ok()) {
    release_reserved(runs);
    return done;
  }
  for (const model::SequenceRun& run : runs) pool_->commit(run.seq, run.count);
  if (store_) store_->end_pass();
  return ok_status();
}

// Before a pass of so many rows: weights give way to what it needs beside the fixed part, or take back what it does
// not.
void Engine::make_room(int64_t rows) {
  const bool activations = take_activations(rows);
  const bool kv = take_kv();
  if (activations || kv) make_room_now();
}

void Engine::make_room_now() {
  populator_.stop();  // or it would bring back what is given away
  if (store_) {
    const int64_t from_matrices = std::min(prompt_room_, streaming_->spare());
    streaming_->make_room(from_matrices);
    store_->make_room(kv_room_ + prompt_room_ - from_matrices);
  } else {
    streaming_->make_room(kv_room_ + prompt_room_);
  }
  populate();
}

// The memory of a prompt's activations belongs to the weights while few tokens are computed: from the second pass on,
// so that prompts and steps that alternate do not read the same weights again and again. True where that changed.
bool Engine::take_activations(int64_t rows) {
  const bool many = rows > few_rows_;
  const int64_t room = many || many_before_ ? prompt_bytes_ : 0;
  many_before_ = many;
  if (room == prompt_room_) return false;
  if (room == 0) transformer_->discard_scratch();
  prompt_room_ = room;
  return true;
}

// Pages of the pool cost memory when they are first written. Weights give way in steps of a sixteenth of the full
// context, before the pages are needed: a short conversation leaves the rest to the weights. True where that changed.
bool Engine::take_kv() {
  const auto page = static_cast<int64_t>(kv::KvPool::page_bytes(pool_->options()));
  const int64_t all = pool_->options().pages;
  const int64_t used = all - pool_->free_pages();
  if (used * page <= kv_room_) return false;
  const int64_t step = std::max<int64_t>(1, all / kKvSteps);
  kv_room_ = std::min(all, (used + step - 1) / step * step) * page;
  return true;
}

// Matrices first: they are needed first.
void Engine::populate() {
  std::vector<sys::Populator::Range> ranges = {streaming_->source().memory()};
  if (store_) ranges.push_back(store_->memory());
  populator_.start(std::move(ranges));
}

void Engine::release_reserved(std::span<const model::SequenceRun> runs) {
  for (const model::SequenceRun& run : runs) pool_->truncate(run.seq, run.pos);
}

Status Engine::logits(int64_t first, int64_t count, float* out) { return transformer_->logits(first, count, out); }

}  // namespace stoke::engine
