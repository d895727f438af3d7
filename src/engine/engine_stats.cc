// Engine: what it counts, for those who ask afterwards and those who watch.
#include <chrono>
#include <utility>

#include "engine/engine.h"
#include "sys/memory.h"

namespace stoke::engine {
namespace {

constexpr double kTickSeconds = 0.25;

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? -1.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

Stats Engine::stats() {
  timings_.sample_memory();
  Stats stats;
  stats.model = info().name;
  stats.threads = threads();
  stats.isa = kernels_->isa;
  stats.load_s = open_s_;
  stats.budget_bytes = memory_.budget;
  stats.budget_source = memory_.budget_source;
  stats.forecast_tokens_per_s = memory_.forecast.tokens_per_s;
  timings_.fill(&stats);
  if (store_) store_stats(&stats);
  if (streaming_) {
    stream_stats(&stats);
    return stats;
  }
  const LoadStats load = resident_->stats();
  stats.weights_loaded_s = load.seconds;
  stats.page_cache_bytes = static_cast<int64_t>(load.bytes_missed);
  stats.bytes_read = static_cast<int64_t>(load.bytes_read_direct) + stats.page_cache_bytes;
  stats.reads = static_cast<int64_t>(load.reads);
  return stats;
}

void Engine::stream_stats(Stats* stats) const {
  stats->reader = streaming_->reader_name();
  stats->cache_hit_rate = hit_rate();
  if (!store_ && config().moe.experts > 0) stats->cache_slots = streaming_->source().experts_held(config());
  const IoMark since = io_now() - io_before_;
  stats->bytes_read = static_cast<int64_t>(since.bytes);
  stats->reads = static_cast<int64_t>(since.reads);
  const int64_t tokens = stats->generated_tokens > 0 ? stats->generated_tokens : stats->prompt_tokens;
  if (stats->generated_tokens > 0) {
    stats->bytes_read_per_token = static_cast<double>(decode_io_.bytes) / static_cast<double>(tokens);
    stats->reads_per_token = static_cast<double>(decode_io_.reads) / static_cast<double>(tokens);
    const double seconds = static_cast<double>(tokens) / stats->decode_tokens_per_s;
    stats->io_stall_share = static_cast<double>(decode_io_.stall_ns) * 1e-9 / seconds;
    stats->read_bytes_per_s = static_cast<double>(decode_io_.bytes) / seconds;
  } else if (tokens > 0) {
    stats->bytes_read_per_token = static_cast<double>(stats->bytes_read) / static_cast<double>(tokens);
    const double seconds = static_cast<double>(tokens) / stats->prefill_tokens_per_s;
    stats->read_bytes_per_s = static_cast<double>(stats->bytes_read) / seconds;
  }
}

// Of decoding's look-ups, as the other figures of a token; before it, of the prompt's. Negative where there were none.
double Engine::hit_rate() const {
  const IoMark counted = decode_io_.lookups > 0 ? decode_io_ : io_now() - io_before_;
  return share(counted.hits, counted.lookups);
}

// A store's are its records', a mixture's its experts': what is pinned beside them is no merit of the cache.
void Engine::count_lookups(IoMark* mark) const {
  if (store_) {
    const pipeline::FetchCounts fetch = store_->counts().fetch;
    mark->hits = fetch.hot_hits + fetch.cache_hits;
    mark->lookups = fetch.lookups;
    return;
  }
  const pipeline::StreamCounts& counts = streaming_->source().counts();
  const bool experts = config().moe.experts > 0;
  mark->hits = experts ? counts.expert_hits : counts.dense_hits;
  mark->lookups = mark->hits + (experts ? counts.expert_misses : counts.dense_misses);
}

void Engine::store_stats(Stats* stats) const {
  const pipeline::SparseCounts counts = store_->counts();
  const pipeline::SparseCounts& before = sparse_before_;
  stats->active_neuron_share = share(counts.fetch.lookups - before.fetch.lookups, counts.neurons - before.neurons);
  stats->ablation = store_->ablation().name;
  stats->cache_slots = store_->cache_slots();
}

Activity Engine::activity() const {
  return {.seconds = seconds_since(start_),
          .prompt_tokens = prompt_done_,
          .generated_tokens = timings_.generated(),
          .bytes_read = static_cast<int64_t>((io_now() - io_before_).bytes),
          .cache_hit_rate = hit_rate(),
          .memory_bytes = static_cast<int64_t>(sys::process_memory().anonymous),
          .budget_bytes = memory_.budget};
}

// What passes call between leases; empty where nobody watches.
std::function<void()> Engine::ticker(ActivityCallback activity) {
  if (!activity || !streaming_) return nullptr;
  return [this, activity = std::move(activity), last = now()]() mutable {
    if (seconds_since(last) < kTickSeconds) return;
    last = now();
    activity(this->activity());
  };
}

Engine::IoMark Engine::io_now() const {
  if (!streaming_) return {};
  const io::ReadCounts counts = streaming_->queue().counts();
  IoMark now{.bytes = counts.bytes, .reads = counts.reads, .stall_ns = streaming_->queue().stall_ns()};
  count_lookups(&now);
  return now;
}

Engine::IoMark& Engine::IoMark::operator+=(const IoMark& other) {
  bytes += other.bytes;
  reads += other.reads;
  stall_ns += other.stall_ns;
  hits += other.hits;
  lookups += other.lookups;
  return *this;
}

Engine::IoMark Engine::IoMark::operator-(const IoMark& other) const {
  return {.bytes = bytes - other.bytes,
          .reads = reads - other.reads,
          .stall_ns = stall_ns - other.stall_ns,
          .hits = hits - other.hits,
          .lookups = lookups - other.lookups};
}

void Engine::add_prefill(int64_t tokens, double seconds) {
  timings_.add_prefill(tokens, seconds);
  timings_.sample_memory();
  io_mark_ = io_now();
}

void Engine::add_step(int64_t tokens, double seconds) {
  timings_.add_step(tokens, seconds);
  const IoMark now = io_now();
  decode_io_ += now - io_mark_;
  io_mark_ = now;
}

void Engine::reset_stats() {
  timings_.reset();
  decode_io_ = {};
  prompt_done_ = 0;
  io_before_ = io_mark_ = io_now();
  if (store_) sparse_before_ = store_->counts();
}

}  // namespace stoke::engine
