// A model that does not fit: what of the budget is fixed, what is left for weights, and the source that streams them.
//
// The budget bounds everything the process holds. Fixed: what it holds already (program, tokenizer, metadata, norms),
// KV, activations, tables, and kSlackBytes for what nobody can foresee (allocator, stacks, text). All the rest is
// slots. Thread role: the control thread. Ownership: files, reader, queue and source are owned here. Errors: kNoMemory
// names the minimum and what would lower it; kUnsupported where the weights would have to be converted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/chunk_reader.h"
#include "engine/forecast.h"
#include "engine/memory_need.h"
#include "engine/weight_plan.h"
#include "io/reader.h"
#include "model/weights.h"
#include "pipeline/io_queue.h"
#include "pipeline/stream_source.h"
#include "sys/clock.h"
#include "sys/thread_pool.h"
#include "sys/trace.h"

namespace stoke::engine {

// Heap growth after the sizing, measured at 2 to 4 MiB on models from 135M to 30B.
inline constexpr int64_t kSlackBytes = int64_t{6} << 20;

class Streaming {
 public:
  struct Request {
    const formats::ModelFile& file;
    const WeightPlan& plan;
    const model::Weights& weights;
    const model::Config& config;
    int64_t budget = 0;
    int64_t fixed = 0;  // bytes of the budget that are neither slots nor KV
  };
  // Files, reader and queue.
  static Result<std::unique_ptr<Streaming>> open(const formats::ModelFile& file);
  // The source, which takes what the budget leaves.
  Status open_source(const Request& request);
  ~Streaming();

  // Whether the plan's matrices can be streamed: they lie in their files as they are used.
  static Status check(const formats::ModelFile& file, const WeightPlan& plan);
  // The least and the most that slots can use, in bytes; for `inspect` and for errors.
  struct Range {
    int64_t least = 0;
    int64_t most = 0;
  };
  static Result<Range> range(const Request& request);
  // What a token goes through with the slots that the request leaves; of a store, its matrices alone.
  static TokenWork work(const Request& request, const pipeline::UnitTable& units);
  static Result<pipeline::UnitTable> table(const Request& request, const std::vector<OpenedFile>& files);

  // One line: what is in memory, what every token reads, and how fast this machine's disk lets that be.
  // `resident_bytes`: room for weights before the KV cache takes its part.
  std::string describe(int64_t weights_bytes, int64_t resident_bytes, const Forecast& forecast) const;
  const std::vector<OpenedFile>& files() const { return files_; }
  pipeline::IoQueue& queue() { return *queue_; }
  pipeline::StreamSource& source() { return *source_; }
  const pipeline::IoQueue& queue() const { return *queue_; }
  // Others hold so many bytes of the room for slots: these give way, or take back what is left. Requires: no lease.
  void make_room(int64_t bytes);
  // The most that make_room() can give.
  int64_t spare() const;
  // Reads go on while the threads of `pool` compute.
  void poll_from(sys::ThreadPool& pool);
  // Null: nobody traces.
  void trace_to(sys::Trace* trace);
  const char* reader_name() const { return reader_->name(); }
  const std::string& reader_note() const { return reader_note_; }
  bool direct() const;

 private:
  Streaming() = default;
  static int64_t room_of(const Request& request, const pipeline::UnitTable& units);
  static pipeline::StreamOptions options_of(const Request& request, const pipeline::UnitTable& units);

  std::vector<OpenedFile> files_;
  sys::SystemClock clock_;
  std::string reader_note_;
  std::unique_ptr<io::Reader> reader_;
  std::unique_ptr<pipeline::IoQueue> queue_;
  std::unique_ptr<pipeline::StreamSource> source_;
  sys::ThreadPool* pool_ = nullptr;
  int64_t room_ = 0;  // bytes for slots, and for KV and activations of a prompt where these have no room of their own
};

}  // namespace stoke::engine
