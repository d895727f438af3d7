#include "engine/stream_plan.h"

#include <algorithm>

#include "engine/engine.h"
#include "engine/forecast.h"

namespace stoke::engine {

Streaming::Request stream_request(const Prepared& prepared) {
  return {.file = prepared.file,
          .plan = prepared.loaded.plan,
          .weights = prepared.loaded.weights,
          .config = prepared.loaded.config};
}

Result<StreamPlan> plan_stream(const Streamable& model, const Budget& budget) {
  const Prepared& prepared = model.prepared;
  StreamPlan out{.request = stream_request(prepared)};
  STOKE_ASSIGN(out.sizes, fit_streaming(prepared.file.path, model.need, prepared.sizes, budget));
  out.need = memory_need_streaming(model.need.streamed, few_tokens(out.sizes), model.need.held);
  const MemoryReport prompt = memory_need_streaming(model.need.streamed, out.sizes, model.need.held);
  out.prompt_bytes = prompt.total - out.need.total;
  out.request.fixed = out.need.total - out.need.kv;
  const int64_t room = budget.bytes - out.request.fixed;
  out.split.fixed_bytes = room;
  if (model.store != nullptr) out.split = model.store->plan(room, out.need.kv, model.range);
  out.request.budget = out.request.fixed + out.split.fixed_bytes;
  return out;
}

void foresee(const Streamable& model, const StreamPlan& plan, const pipeline::UnitTable& units, const Budget& budget,
             MemoryReport* report) {
  const Prepared& prepared = model.prepared;
  Streaming& streaming = model.streaming;
  // The first step of the KV cache is taken with the first token.
  const int64_t first_kv = plan.need.kv / kKvSteps;
  Streaming::Request soon = plan.request;
  if (model.store == nullptr) soon.fixed += first_kv;
  TokenWork work = Streaming::work(soon, units);
  if (model.store != nullptr) model.store->add_work(plan.split, &work);
  const auto kept = kept_rates(prepared.file.path, model.need.whole.threads->size(), work.record_bytes);
  report->forecast =
      forecast(work, kept ? *kept : trial_rates(streaming.queue(), units, prepared.loaded.tables, streaming.files()));
  const int64_t room = budget.bytes - plan.need.total + plan.need.kv - first_kv;
  const int64_t weights = model.need.whole.weights_bytes;
  // Slots that a stream passes through hold nothing for long.
  const int64_t held = std::min(room, weights - static_cast<int64_t>(work.streamed));
  report->streaming = streaming.describe(weights, held, report->forecast);
  // More memory would not change what such a step reads.
  if (model.store != nullptr && model.store->ablation().whole_layers) return;
  Sizes least = prepared.sizes.least;
  least.context = plan.sizes.context;
  report->advice = tight_advice({.budget = budget.bytes,
                                 .least = std::min(least_memory(model.need, least).total, budget.bytes),
                                 .context = plan.sizes.context,
                                 .weights = weights,
                                 .full = memory_need(model.need.whole, prepared.sizes.wanted).total + kHeldDrift,
                                 .batch = plan.sizes.batch},
                                work);
}

}  // namespace stoke::engine
