// How a model that does not fit is laid into its budget, and what there is to say of that before it runs: one for the
// engine, which opens it so, and for inspect, which only looks.
// Thread role: the control thread. Ownership: everything referred to is the caller's. Errors: kNoMemory as
// memory_need.h says.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "engine/memory_need.h"
#include "engine/sparse_store.h"
#include "engine/streaming.h"
#include "pipeline/unit_table.h"
#include "plan/plan.h"

namespace stoke::engine {

struct Prepared;

// What is known of a model that would be streamed.
struct Streamable {
  const Prepared& prepared;
  StreamingNeed need;
  Streaming::Range range;
  Streaming& streaming;
  const SparseStore* store = nullptr;  // null: no neuron store
};

// Without a budget.
Streaming::Request stream_request(const Prepared& prepared);

struct StreamPlan {
  Sizes sizes;
  MemoryReport need;           // all but weights, in a pass of few tokens
  int64_t prompt_bytes = 0;    // what a pass of a full batch takes beside
  plan::Plan split;            // of what is left, between matrices and records
  Streaming::Request request;  // of the matrices
};
Result<StreamPlan> plan_stream(const Streamable& model, const Budget& budget);

// Fills forecast, streaming and advice. `units`: of the plan's request. May try some reads.
void foresee(const Streamable& model, const StreamPlan& plan, const pipeline::UnitTable& units, const Budget& budget,
             MemoryReport* report);

}  // namespace stoke::engine
