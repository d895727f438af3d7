// How much memory a model takes, whether that fits, and what would fit if it does not.
//
// Everything is sized before anything large is taken. Thread role: any. Ownership: values.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/status.h"
#include "kv/kv_pool.h"
#include "model/config.h"
#include "stoke/stoke.h"
#include "sys/thread_pool.h"

namespace stoke::engine {

// Rows of logits that score() holds at once.
inline constexpr int64_t kScoreRows = 16;
// Prompt tokens a pass where memory is scarce.
inline constexpr int64_t kLeastBatch = 16;

// What the need depends on and the options cannot change.
struct ModelSize {
  const model::Config* config = nullptr;
  const sys::ThreadPool* threads = nullptr;
  int64_t weights_bytes = 0;
  int64_t text_bytes = 0;     // tokenizer and template, measured
  int64_t process_bytes = 0;  // what the process held before, measured
  // Working memory of an FFN that is not FullFfn, by batch; empty: FullFfn's.
  std::function<int64_t(int64_t)> ffn_bytes = {};
};

// What the options can change.
struct Sizes {
  int64_t context = 0;
  int64_t batch = 0;
  int sequences = 1;
  kv::KvType kv_type = kv::KvType::kF16;
};
// While streaming, a pass of few tokens leaves the rest of a prompt's activations to the weights: the sizes of one.
Sizes few_tokens(const Sizes& sizes);

// No batch is larger than the context, and none smaller than the sequences that go on together.
Sizes with_context(Sizes sizes, int64_t context);

// What is wanted, and how far it may shrink where memory is scarce: not in what the user gave.
struct SizeRange {
  Sizes wanted;
  Sizes least;
};

// Pages for `sequences` full contexts, and one each to copy a shared page into.
kv::PoolOptions pool_options(const model::Config& config, const Sizes& sizes);

// Fills all but the budget.
MemoryReport memory_need(const ModelSize& model, const Sizes& sizes);

struct Budget {
  int64_t bytes = 0;
  std::string source;
};
// The user's bound, or what machine and cgroup leave free, the smaller. Left to others: 24 MiB for the kernel where the
// user gave a bound, else 2 %, at least 64 MiB.
// `held`: what this process holds already and may keep.
Budget find_budget(int64_t wanted, int64_t held);

// The sizes to hold the model whole with: as wanted, with a smaller batch where only that makes it fit. None where
// nothing does.
std::optional<Sizes> fit_sizes(const ModelSize& model, const SizeRange& sizes, const Budget& budget);

// Streaming: all but the weights, where `held` is what the process holds already, slack included.
MemoryReport memory_need_streaming(const ModelSize& model, const Sizes& sizes, int64_t held);
struct StreamingNeed {
  ModelSize whole;            // all in memory
  ModelSize streamed;         // its FFN may need other memory
  int64_t held = 0;           // by the process, slack included
  int64_t least_weights = 0;  // slots that make progress
};
// The sizes to stream with: the largest batch whose activations take at most an eighth of the budget (a larger wave
// reads each weight fewer times, a larger pinned part reads fewer of them); the context is halved where nothing else
// makes it fit.
// kNoMemory says how much is needed, how much there is, and what would lower it.
Result<Sizes> fit_streaming(const std::string& path, const StreamingNeed& need, const SizeRange& sizes,
                            const Budget& budget);

// The KV cache takes memory from streamed weights in so many steps, each before it is needed.
inline constexpr int64_t kKvSteps = 16;

// The same program holds a little more at one start than at another, and the least that is told is a promise.
inline constexpr int64_t kHeldDrift = int64_t{1} << 20;
// What runs with these sizes: streamed, or whole where that takes less. Whoever tells the least that runs (inspect, a
// refusal, the line on a budget near it) has it from here.
MemoryReport least_memory(const StreamingNeed& need, const Sizes& sizes);
// One line on how well it fits whole, with what would help where it does not.
std::string fit_advice(const ModelSize& model, const SizeRange& sizes, const Budget& budget);

// "3.5 GiB".
std::string bytes_text(int64_t bytes);

}  // namespace stoke::engine
