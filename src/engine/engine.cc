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
  if (!prepared.loaded.tables.empty()) {
    return Status(Code::kUnsupported,
                  fmt::format("{}: this stoke cannot run neuron stores yet: run the model it was made from", path));
  }
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
  const ModelSize size = prepared_.size(*threads_);
  const Budget budget = find_budget(options.memory_bytes, held_now());
  STOKE_ASSIGN(sizes_, fit_sizes(prepared_.file.path, size, prepared_.wanted, prepared_.batch_is_free, budget));
  memory_ = memory_need(size, sizes_);
  memory_.budget = budget.bytes;
  memory_.budget_source = budget.source;

  cached_before_ = cached_now(prepared_.file);
  STOKE_ASSIGN(source_, ResidentSource::open(
                            prepared_.file, prepared_.loaded.plan,
                            {.conversion = {.dequantize = kernels_->dequantize_row, .quantize = kernels::quantize_row},
                             .cancel = options.cancel}));
  cancellable_ = std::make_unique<CancellableSource>(*source_, options.progress);
  STOKE_ASSIGN(pool_, kv::KvPool::create(pool_options(config(), sizes_)));
  score_rows_.resize(static_cast<size_t>(kScoreRows * config().vocab));
  transformer_ = std::make_unique<model::Transformer>(
      model::Transformer::Parts{.config = config(),
                                .weights = prepared_.loaded.weights,
                                .source = *cancellable_,
                                .pool = *pool_,
                                .kernels = *kernels_,
                                .threads = *threads_},
      model::TransformerOptions{.max_batch = sizes_.batch, .max_context = sizes_.context});
  return ok_status();
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
  cancellable_->watch(cancel);
  Status done = transformer_->forward({.tokens = tokens, .runs = runs, .outputs = outputs});
  cancellable_->watch(nullptr);
  if (!done.ok()) {
    release_reserved(runs);
    return done;
  }
  for (const model::SequenceRun& run : runs) pool_->commit(run.seq, run.count);
  return ok_status();
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
  const LoadStats load = source_->stats();
  stats.weights_loaded_s = load.seconds;
  // What was not read directly came through the page cache; what it did not hold before, our reads put there.
  const auto buffered = static_cast<int64_t>(load.bytes_read - load.bytes_read_direct);
  stats.page_cache_bytes = std::max<int64_t>(0, buffered - cached_before_);
  stats.bytes_read = static_cast<int64_t>(load.bytes_read_direct) + stats.page_cache_bytes;
  stats.reads = static_cast<int64_t>(load.reads);
  return stats;
}

}  // namespace stoke::engine
