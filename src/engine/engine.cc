#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/describe.h"
#include "engine/tokenizer_impl.h"
#include "kernels/quantize.h"
#include "sys/cpu.h"
#include "sys/memory.h"
#include "sys/residency.h"

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

Result<Sizes> wanted_sizes(const model::Config& config, const ModelOptions& options) {
  if (options.context < 0 || options.batch < 0 || options.sequences < 1 || options.threads < 0 ||
      options.memory_bytes < 0) {
    return Status(Code::kInvalid,
                  "options: context, batch, threads and memory must not be negative, sequences above 0");
  }
  Sizes sizes;
  sizes.context = options.context > 0 ? options.context : std::min(kDefaultContext, config.context);
  if (sizes.context > config.context) {
    return Status(Code::kInvalid, fmt::format("a context of {} is more than the {} the model was made for",
                                              sizes.context, config.context));
  }
  sizes.batch = options.batch > 0 ? options.batch : kDefaultBatch;
  sizes.batch = std::max<int64_t>(std::min(sizes.batch, sizes.context), options.sequences);
  sizes.sequences = options.sequences;
  STOKE_ASSIGN(sizes.kv_type, parse_kv_type(options.kv_type));
  return sizes;
}

int64_t held_now() { return static_cast<int64_t>(sys::process_memory().anonymous); }

// Of the model's files, in the page cache.
int64_t cached_now(const formats::ModelFile& model) {
  int64_t bytes = 0;
  for (const std::string& path : model.files) {
    auto file = sys::File::open_read(path);
    if (file.ok()) bytes += static_cast<int64_t>(sys::cached_bytes(*file).value_or(0));
  }
  return bytes;
}

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
  prepared.text_bytes = std::max<int64_t>(0, held_now() - before_text);
  if (prepared.tokenizer->vocabulary() > prepared.loaded.config.vocab) {
    return Status(Code::kInvalid,
                  fmt::format("{}: the tokenizer knows {} tokens, the model {}: they do not belong together", path,
                              prepared.tokenizer->vocabulary(), prepared.loaded.config.vocab));
  }
  STOKE_ASSIGN(prepared.wanted, wanted_sizes(prepared.loaded.config, options));
  prepared.batch_is_free = options.batch == 0;
  prepared.info = describe(prepared);
  return prepared;
}

Engine::Engine(Prepared prepared, std::unique_ptr<sys::ThreadPool> threads)
    : prepared_(std::move(prepared)), threads_(std::move(threads)) {}

Result<std::unique_ptr<Engine>> Engine::open(const std::string& path, const ModelOptions& options) {
  const TimePoint start = now();
  STOKE_ASSIGN(const kernels::Kernels* kernels, choose_kernels(options.isa));
  STOKE_ASSIGN(Prepared prepared, prepare(path, options));
  auto threads = std::make_unique<sys::ThreadPool>(options.threads > 0 ? options.threads : default_threads());
  std::unique_ptr<Engine> engine(new Engine(std::move(prepared), std::move(threads)));
  engine->start_ = start;
  engine->kernels_ = kernels;
  STOKE_TRY(engine->take_memory(options));
  engine->open_s_ = seconds_since(start);
  engine->timings_.sample_memory();
  return engine;
}

Status Engine::take_memory(const ModelOptions& options) {
  cached_before_ = cached_now(prepared_.file);
  if (!prepared_.loaded.tables.empty()) {
    STOKE_ASSIGN(store_, SparseStore::open(prepared_.file, prepared_.loaded));
  }
  const ModelSize size = model_size(nullptr);
  const Budget budget = find_budget(options.memory_bytes, held_now());
  Result<Sizes> all = fit_sizes(prepared_.file.path, size, prepared_.wanted, prepared_.batch_is_free, budget);
  if (all.ok()) {
    sizes_ = *all;
    memory_ = memory_need(size, sizes_);
    STOKE_TRY(open_resident(options));
  } else {
    STOKE_TRY(open_streaming(options, budget));
  }
  memory_.budget = budget.bytes;
  memory_.budget_source = budget.source;
  model::WeightSource& source = streaming_ ? static_cast<model::WeightSource&>(streaming_->source()) : *resident_;
  cancellable_ = std::make_unique<CancellableSource>(source, resident_.get(), options.progress);
  STOKE_ASSIGN(pool_, kv::KvPool::create(pool_options(config(), sizes_)));
  score_rows_.resize(static_cast<size_t>(kScoreRows * config().vocab));
  std::function<std::unique_ptr<model::Ffn>(model::Multiplier&)> make_ffn;
  if (store_) make_ffn = [this](model::Multiplier& m) { return store_->make_ffn(m, sizes_.batch); };
  transformer_ = std::make_unique<model::Transformer>(
      model::Transformer::Parts{.config = config(),
                                .weights = prepared_.loaded.weights,
                                .source = *cancellable_,
                                .pool = *pool_,
                                .kernels = *kernels_,
                                .threads = *threads_,
                                .make_ffn = std::move(make_ffn)},
      model::TransformerOptions{.max_batch = sizes_.batch, .max_context = sizes_.context});
  return ok_status();
}

ModelSize Engine::model_size(pipeline::IoQueue* queue) {
  ModelSize size = prepared_.size(*threads_);
  if (store_) {
    size.ffn_bytes = [this, queue](int64_t batch) { return store_->ffn_bytes(*kernels_, *threads_, batch, queue); };
  }
  return size;
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
  const int64_t held = held_now();
  Streaming::Request request{.file = prepared_.file,
                             .plan = prepared_.loaded.plan,
                             .weights = prepared_.loaded.weights,
                             .config = config(),
                             .budget = budget.bytes};
  STOKE_ASSIGN(const Streaming::Range range, Streaming::range(request));
  STOKE_ASSIGN(streaming_, Streaming::open(prepared_.file));
  const ModelSize size = model_size(&streaming_->queue());
  const int64_t least_records = store_ ? store_->least_bytes() : 0;
  STOKE_ASSIGN(sizes_,
               fit_streaming(prepared_.file.path, size, prepared_.wanted, prepared_.batch_is_free,
                             {.held = held + kSlackBytes, .least_weights = range.least + least_records}, budget));
  memory_ = memory_need_streaming(size, sizes_, held + kSlackBytes);
  request.fixed = memory_.total - memory_.kv;
  if (store_) STOKE_TRY(open_records(range.most, least_records, &request));
  STOKE_TRY(streaming_->open_source(request));
  memory_.weights = budget.bytes - memory_.total;
  memory_.total = budget.bytes;
  memory_.streaming = streaming_->describe(size.weights_bytes, memory_.weights);
  streaming_->source().watch(options.cancel);
  if (store_) streaming_->source().check_against(&store_->matrix_checks());
  streaming_->poll_from(*threads_);
  streaming_->source().start();
  return ok_status();
}

// A store's matrices (attention, gates, head) come first: every token uses all of them. Records get the rest, and give
// way to the KV cache as it grows.
Status Engine::open_records(int64_t matrices, int64_t least, Streaming::Request* request) {
  const int64_t room = request->budget - request->fixed;
  // The hottest quarter of the records is worth more than as many bytes of matrices: a third of the tokens use each,
  // and a miss is a small read at a sixth of the rate of large ones (docs/reads.md).
  const int64_t hottest = std::min(store_->record_bytes() / 4, (room - memory_.kv) / 2);
  const int64_t for_matrices = std::min(matrices, room - memory_.kv - std::max(least, hottest));
  records_room_ = room - for_matrices;
  request->budget = request->fixed + for_matrices;
  return store_->cache_in(records_room_, streaming_->files(), streaming_->queue());
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
  if (streaming_) make_room_for_kv();
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

// Pages of the pool cost memory when they are first written. Weights give way in steps of a sixteenth of the full
// context, before the pages are needed: a short conversation leaves the rest to the weights.
void Engine::make_room_for_kv() {
  const auto page = static_cast<int64_t>(kv::KvPool::page_bytes(pool_->options()));
  const int64_t all = pool_->options().pages;
  const int64_t used = all - pool_->free_pages();
  if (used * page <= kv_room_) return;
  const int64_t step = std::max<int64_t>(1, all / 16);
  kv_room_ = std::min(all, (used + step - 1) / step * step) * page;
  if (store_) {
    store_->shrink(records_room_ - kv_room_);
  } else {
    streaming_->make_room(kv_room_);
  }
}

void Engine::release_reserved(std::span<const model::SequenceRun> runs) {
  for (const model::SequenceRun& run : runs) pool_->truncate(run.seq, run.pos);
}

Status Engine::logits(int64_t first, int64_t count, float* out) { return transformer_->logits(first, count, out); }

Stats Engine::stats() {
  timings_.sample_memory();
  Stats stats;
  stats.model = info().name;
  stats.threads = threads();
  stats.isa = kernels_->isa;
  stats.load_s = open_s_;
  stats.budget_bytes = memory_.budget;
  timings_.fill(&stats);
  if (store_) store_stats(&stats);
  if (streaming_) {
    stream_stats(&stats);
    return stats;
  }
  const LoadStats load = resident_->stats();
  stats.weights_loaded_s = load.seconds;
  // What was not read directly came through the page cache; what it did not hold before, our reads put there.
  const auto buffered = static_cast<int64_t>(load.bytes_read - load.bytes_read_direct);
  stats.page_cache_bytes = std::max<int64_t>(0, buffered - cached_before_);
  stats.bytes_read = static_cast<int64_t>(load.bytes_read_direct) + stats.page_cache_bytes;
  stats.reads = static_cast<int64_t>(load.reads);
  return stats;
}

void Engine::stream_stats(Stats* stats) const {
  const io::ReadCounts reads = streaming_->queue().counts();
  const pipeline::StreamCounts& counts = streaming_->source().counts();
  stats->bytes_read = static_cast<int64_t>(reads.bytes - reads_before_.bytes);
  stats->reads = static_cast<int64_t>(reads.reads - reads_before_.reads);
  stats->page_cache_bytes = std::max<int64_t>(0, cached_now(prepared_.file) - cached_before_);
  const int64_t tokens = stats->generated_tokens > 0 ? stats->generated_tokens : stats->prompt_tokens;
  if (stats->generated_tokens > 0) {
    stats->bytes_read_per_token = static_cast<double>(decode_io_.bytes) / static_cast<double>(tokens);
    const double seconds = static_cast<double>(tokens) / stats->decode_tokens_per_s;
    stats->io_stall_share = static_cast<double>(decode_io_.stall_ns) * 1e-9 / seconds;
  } else if (tokens > 0) {
    stats->bytes_read_per_token = static_cast<double>(stats->bytes_read) / static_cast<double>(tokens);
  }
  const uint64_t hits = counts.expert_hits + counts.dense_hits - stream_before_.expert_hits - stream_before_.dense_hits;
  const uint64_t misses =
      counts.expert_misses + counts.dense_misses - stream_before_.expert_misses - stream_before_.dense_misses;
  if (!store_ && hits + misses > 0)
    stats->cache_hit_rate = static_cast<double>(hits) / static_cast<double>(hits + misses);
}

void Engine::store_stats(Stats* stats) const {
  const pipeline::SparseCounts counts = store_->counts();
  const auto share = [](uint64_t part, uint64_t whole) {
    return whole == 0 ? -1.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  const uint64_t lookups = counts.fetch.lookups;
  stats->active_neuron_share = share(lookups, counts.neurons);
  if (streaming_) stats->cache_hit_rate = share(counts.fetch.hot_hits + counts.fetch.cache_hits, lookups);
}

Engine::IoMark Engine::io_now() const {
  if (!streaming_) return {};
  return {.bytes = streaming_->queue().counts().bytes, .stall_ns = streaming_->queue().stall_ns()};
}

void Engine::add_prefill(int64_t tokens, double seconds) {
  timings_.add_prefill(tokens, seconds);
  timings_.sample_memory();
  io_mark_ = io_now();
}

void Engine::add_step(int64_t tokens, double seconds) {
  timings_.add_step(tokens, seconds);
  const IoMark now = io_now();
  decode_io_.bytes += now.bytes - io_mark_.bytes;
  decode_io_.stall_ns += now.stall_ns - io_mark_.stall_ns;
  io_mark_ = now;
}

void Engine::reset_stats() {
  timings_.reset();
  decode_io_ = {};
  io_mark_ = io_now();
  if (!streaming_) return;
  reads_before_ = streaming_->queue().counts();
  stream_before_ = streaming_->source().counts();
}

}  // namespace stoke::engine
