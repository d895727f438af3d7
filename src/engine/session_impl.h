// The insides of the public Model and Session.
//
// Thread role: the control thread. Ownership: the model owns the engine, a session its sequence in the pool.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "stoke/stoke.h"

namespace stoke {

struct Model::Impl {
  std::unique_ptr<engine::Engine> engine;
  std::vector<int32_t> step_tokens;  // of decode(); capacity: the batch
  std::vector<model::SequenceRun> step_runs;
  std::vector<int64_t> step_outputs;
};

struct Session::Impl {
  // Takes over a sequence of the engine's pool.
  Impl(engine::Engine& owner, kv::SeqId sequence);
  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // Appends one pass of at most a batch; its last `outputs` rows keep their state for logits.
  Status pass(std::span<const int32_t> more, int64_t outputs, const CancelFlag* cancel);
  Status check_room(size_t more) const;
  Status check_ids(std::span<const int32_t> more) const;

  engine::Engine& engine;
  kv::SeqId seq;
  std::vector<int32_t> tokens;   // capacity: the context
  std::vector<float> logits;     // (vocabulary) after the last token, where has_logits
  std::vector<int64_t> outputs;  // capacity: kScoreRows
  bool has_logits = false;
  bool waiting = false;  // a prefill has begun and no token was chosen yet
  engine::TimePoint waiting_since;
};

}  // namespace stoke
