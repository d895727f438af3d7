// Model: open, new sessions, decoding of several sessions together, inspection.
#include <fmt/format.h>

#include <algorithm>

#include "engine/describe.h"
#include "engine/session_impl.h"
#include "engine/stream_plan.h"
#include "sys/memory.h"

namespace stoke {

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::open(const std::string& path, const ModelOptions& options) {
  auto impl = std::make_unique<Impl>();
  STOKE_ASSIGN(impl->engine, engine::Engine::open(path, options));
  const auto batch = static_cast<size_t>(impl->engine->sizes().batch);
  impl->step_tokens.reserve(batch);
  impl->step_runs.reserve(batch);
  impl->step_outputs.reserve(batch);
  return std::make_unique<Model>(std::move(impl));
}

const ModelInfo& Model::info() const { return impl_->engine->info(); }
const MemoryReport& Model::memory() const { return impl_->engine->memory(); }
int64_t Model::context() const { return impl_->engine->sizes().context; }
int64_t Model::batch() const { return impl_->engine->sizes().batch; }
int Model::threads() const { return impl_->engine->threads(); }
const Tokenizer& Model::tokenizer() const { return impl_->engine->tokenizer(); }
Status Model::finish_loading() { return impl_->engine->finish_loading(); }
Stats Model::stats() const { return impl_->engine->stats(); }
void Model::reset_stats() { impl_->engine->reset_stats(); }
Status Model::write_trace() {
  sys::Trace* trace = impl_->engine->trace();
  return trace == nullptr ? ok_status() : trace->write();
}

Result<std::unique_ptr<Session>> Model::new_session() {
  engine::Engine& engine = *impl_->engine;
  return std::make_unique<Session>(std::make_unique<Session::Impl>(engine, engine.pool().create_sequence()));
}

Status Model::decode(std::span<Session* const> sessions, std::span<const int32_t> tokens) {
  CHECK(sessions.size() == tokens.size());
  if (std::ssize(sessions) > batch()) {
    return Status(Code::kInvalid, fmt::format("{} sessions do not fit into a batch of {}", sessions.size(), batch()));
  }
  const auto start = engine::now();
  const sys::TraceSpan span(impl_->engine->trace(), 0, sys::TraceKind::kToken, std::ssize(sessions));
  impl_->step_runs.clear();
  impl_->step_outputs.clear();
  for (size_t i = 0; i < sessions.size(); ++i) {
    const Session::Impl& session = sessions[i]->impl();
    STOKE_TRY(session.check_room(1));
    STOKE_TRY(session.check_ids(tokens.subspan(i, 1)));
    impl_->step_runs.push_back({.seq = session.seq, .first = static_cast<int64_t>(i), .count = 1});
    impl_->step_outputs.push_back(static_cast<int64_t>(i));
  }
  STOKE_TRY(impl_->engine->append(tokens, impl_->step_runs, impl_->step_outputs, nullptr));
  // All heads in one pass over the head's weights, as many rows as there is room for.
  const auto vocab = static_cast<size_t>(info().vocabulary);
  const std::span<float> rows = impl_->engine->score_rows();
  for (size_t at = 0; at < sessions.size(); at += engine::kScoreRows) {
    const size_t count = std::min<size_t>(engine::kScoreRows, sessions.size() - at);
    STOKE_TRY(impl_->engine->logits(static_cast<int64_t>(at), static_cast<int64_t>(count), rows.data()));
    for (size_t i = 0; i < count; ++i) {
      Session::Impl& session = sessions[at + i]->impl();
      std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i * vocab), vocab, session.logits.begin());
      session.tokens.push_back(tokens[at + i]);
      session.has_logits = true;
    }
  }
  impl_->engine->add_step(std::ssize(sessions), engine::seconds_since(start));
  return ok_status();
}

namespace {

// What streaming changes about the fit: its minimum, and the advice where not all of the model fits.
Status add_streaming(const engine::Prepared& prepared, const engine::ModelSize& whole, sys::ThreadPool& threads,
                     const engine::SparseStore* store, Fit* fit) {
  STOKE_ASSIGN(const engine::Streaming::Range range, engine::Streaming::range(engine::stream_request(prepared)));
  STOKE_ASSIGN(const auto streaming, engine::Streaming::open(prepared.file));
  engine::Streamable model{.prepared = prepared,
                           .need = {.whole = whole,
                                    .streamed = whole,
                                    .held = static_cast<int64_t>(sys::process_memory().anonymous) + engine::kSlackBytes,
                                    .least_weights = range.least + (store == nullptr ? 0 : store->least_bytes())},
                           .range = range,
                           .streaming = *streaming,
                           .store = store};
  if (store != nullptr) {
    model.need.streamed.ffn_bytes = [&](int64_t batch) {
      return store->ffn_bytes(kernels::best(), threads, batch, &streaming->queue());
    };
  }
  fit->memory_min_bytes = engine::least_memory(model.need, prepared.sizes.least).total;
  if (fit->fits) return ok_status();
  const engine::Budget budget{fit->report.budget, fit->report.budget_source};
  const Result<engine::StreamPlan> plan = engine::plan_stream(model, budget);
  if (plan.status().code() == Code::kNoMemory) {  // says what would lower it, as a run would
    fit->advice = plan.status().message();
    return ok_status();
  }
  STOKE_TRY(plan.status());
  STOKE_ASSIGN(const pipeline::UnitTable units, engine::Streaming::table(plan->request, streaming->files()));
  engine::foresee(model, *plan, units, budget, &fit->report);
  fit->advice = fit->report.streaming;
  if (!fit->report.advice.empty()) fit->advice += "; " + fit->report.advice;
  return ok_status();
}

}  // namespace

Result<Fit> inspect(const std::string& path, const ModelOptions& options) {
  STOKE_ASSIGN(const engine::Prepared prepared, engine::prepare(path, options));
  sys::ThreadPool threads(options.threads > 0 ? options.threads : engine::default_threads());
  engine::ModelSize size = prepared.size(threads);
  STOKE_ASSIGN(const engine::Ablation ablation, engine::find_ablation(options.ablation));
  std::unique_ptr<engine::SparseStore> store;
  if (!prepared.loaded.tables.empty()) {
    STOKE_ASSIGN(store, engine::SparseStore::open(prepared.file, prepared.loaded, ablation));
    size.ffn_bytes = [&](int64_t batch) { return store->ffn_bytes(kernels::best(), threads, batch, nullptr); };
  }
  const engine::Budget budget =
      engine::find_budget(options.memory_bytes, static_cast<int64_t>(sys::process_memory().anonymous));
  const model::Config& config = prepared.loaded.config;
  Fit fit;
  fit.info = prepared.info;
  fit.weights_bytes = size.weights_bytes;
  fit.context = prepared.sizes.wanted.context;
  fit.report = engine::memory_need(size, prepared.sizes.wanted);
  fit.report.budget = budget.bytes;
  fit.report.budget_source = budget.source;
  fit.fits = fit.report.total <= budget.bytes;
  fit.report.process += engine::kHeldDrift;
  fit.report.total += engine::kHeldDrift;
  fit.memory_full_bytes = fit.report.total;
  fit.memory_min_bytes = engine::memory_need(size, prepared.sizes.least).total + engine::kHeldDrift;
  fit.advice = engine::fit_advice(size, prepared.sizes, budget);
  // A model that cannot be streamed keeps the figures of one that is held whole.
  if (!add_streaming(prepared, size, threads, store.get(), &fit).ok() && store != nullptr) fit.fits = false;
  fit.types = engine::type_shares(prepared.file);
  fit.files = std::ssize(prepared.file.files);
  fit.experts = config.moe.experts;
  fit.experts_used = config.moe.used;
  fit.width = config.dim;
  fit.heads = config.heads;
  fit.kv_heads = config.kv_heads;
  fit.store = engine::describe_store(prepared);
  fit.activation = model::activation_name(config.activation);
  return fit;
}

const char* version() { return STOKE_VERSION; }

}  // namespace stoke
