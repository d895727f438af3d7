#include "engine/streaming.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace stoke::engine {
namespace {

// Single records: with the cores busy 120 reads a millisecond where depth 32 gives 95 (docs/reads.md). Large reads are
// bounded by their bytes (io_queue.h).
constexpr int kDepth = 128;
constexpr size_t kQueued = 4096;

// Rows of a plan's matrix as places in files; each piece was checked against its file when the plan was made.
pipeline::MatrixPlace place_of(const MatrixSpec& spec, const std::vector<OpenedFile>& files) {
  pipeline::MatrixPlace place{.name = spec.name, .info = spec.info, .pieces = {}};
  for (const Piece& piece : spec.pieces) {
    place.pieces.push_back(
        {.file = &files[piece.extent.file].direct,
         .offset = piece.extent.offset + static_cast<uint64_t>(piece.row_begin) * spec.info.row_bytes,
         .rows = piece.rows});
  }
  return place;
}

}  // namespace

Streaming::~Streaming() {
  if (pool_ != nullptr) pool_->set_poll(nullptr, nullptr);
}

Status Streaming::check(const formats::ModelFile& file, const WeightPlan& plan) {
  for (const MatrixSpec& spec : plan.matrices) {
    std::vector<Chunk> chunks;
    STOKE_TRY(plan_chunks(file, spec, 0, size_t{1} << 30, &chunks));  // checks pieces against files
    const bool steps = std::ranges::any_of(spec.pieces, [](const Piece& piece) { return piece.row_step != 1; });
    if (spec.verbatim() && !steps) continue;
    return Status(Code::kUnsupported,
                  fmt::format("{}: tensor {} is converted while loading ({}), so it cannot be streamed: give more "
                              "memory, or a GGUF file that holds the weights as they are used",
                              file.path, spec.name, steps ? "its rows alternate" : "quantised or laid out anew"));
  }
  return ok_status();
}

Result<pipeline::UnitTable> Streaming::table(const Request& request, const std::vector<OpenedFile>& files) {
  std::vector<pipeline::MatrixPlace> places;
  for (const MatrixSpec& spec : request.plan.matrices) places.push_back(place_of(spec, files));
  return pipeline::UnitTable(std::move(places), request.weights, 0);
}

Result<Streaming::Range> Streaming::range(const Request& request) {
  STOKE_TRY(check(request.file, request.plan));
  STOKE_ASSIGN(const std::vector<OpenedFile> files, open_files(request.file.files));
  STOKE_ASSIGN(const pipeline::UnitTable units, table(request, files));
  const auto bytes = [&](int64_t slots) {
    return slots * static_cast<int64_t>(units.slot_bytes()) +
           static_cast<int64_t>(pipeline::StreamSource::bookkeeping_bytes(units, units.size()));
  };
  return Range{.least = bytes(pipeline::StreamSource::least_slots(units, units.layer_expert_units(request.config))),
               .most = bytes(pipeline::StreamSource::all_slots(units))};
}

Result<std::unique_ptr<Streaming>> Streaming::open(const formats::ModelFile& file) {
  std::unique_ptr<Streaming> out(new Streaming());
  STOKE_ASSIGN(out->files_, open_files(file.files));
  STOKE_ASSIGN(out->reader_, io::open_reader({.depth = kDepth}, &out->reader_note_));
  out->queue_ = std::make_unique<pipeline::IoQueue>(*out->reader_, out->clock_, kQueued);
  return out;
}

int64_t Streaming::room_of(const Request& request, const pipeline::UnitTable& units) {
  const auto tables = static_cast<int64_t>(pipeline::StreamSource::bookkeeping_bytes(units, units.size()));
  return request.budget - request.fixed - tables;
}

pipeline::StreamOptions Streaming::options_of(const Request& request, const pipeline::UnitTable& units) {
  const int64_t expert_units = units.layer_expert_units(request.config);
  return {.slots = std::clamp<int64_t>(room_of(request, units) / static_cast<int64_t>(units.slot_bytes()), 0,
                                       pipeline::StreamSource::all_slots(units)),
          .recent = expert_units * request.config.layers,
          .expert_slots_least = expert_units};
}

TokenWork Streaming::work(const Request& request, const pipeline::UnitTable& units) {
  const auto share = pipeline::StreamSource::share_slots(units, options_of(request, units));
  TokenWork work{.dense = share.dense_bytes, .streamed = share.streamed_bytes};
  const model::MoeConfig& moe = request.config.moe;
  if (units.expert_bytes() == 0) return work;
  work.chosen = units.expert_bytes() / static_cast<uint64_t>(moe.experts) * static_cast<uint64_t>(moe.used);
  const auto expert_units = units.size() - static_cast<int64_t>(units.order().size());
  work.chosen_here = static_cast<double>(share.expert_slots) / static_cast<double>(expert_units);
  return work;
}

Status Streaming::open_source(const Request& request) {
  STOKE_TRY(check(request.file, request.plan));
  STOKE_ASSIGN(pipeline::UnitTable units, table(request, files_));
  const pipeline::StreamOptions options = options_of(request, units);
  room_ = room_of(request, units);
  if (options.slots < pipeline::StreamSource::least_slots(units, options.expert_slots_least)) {
    return Status(Code::kNoMemory,
                  fmt::format("{}: room for {} row blocks is too little", request.file.path, options.slots));
  }
  STOKE_ASSIGN(sys::Memory arena, sys::Memory::map(static_cast<size_t>(options.slots) * units.slot_bytes()));
  source_ = std::make_unique<pipeline::StreamSource>(std::move(units), *queue_, std::move(arena), options);
  return ok_status();
}

std::string Streaming::describe(int64_t weights_bytes, int64_t resident_bytes, const Forecast& forecast) const {
  std::string line = fmt::format(
      "bigger than its memory: {} of {} of weights in memory while the context is short; a token reads about {}",
      bytes_text(resident_bytes), bytes_text(weights_bytes), bytes_text(forecast.bytes_per_token));
  line += forecast.text.empty() ? " from disk" : ", " + forecast.text;
  if (!direct()) line += fmt::format(", through the page cache ({})", files_.front().direct.why_not_direct());
  return line;
}

void Streaming::make_room(int64_t bytes) {
  source_->resize((room_ - bytes) / static_cast<int64_t>(source_->table().slot_bytes()));
}

int64_t Streaming::spare() const {
  const int64_t least = source_->least_slots() * static_cast<int64_t>(source_->table().slot_bytes());
  return std::max<int64_t>(0, room_ - least);
}

void Streaming::poll_from(sys::ThreadPool& pool) {
  pool_ = &pool;
  pool.set_poll([](void* queue) { static_cast<pipeline::IoQueue*>(queue)->pump(); }, queue_.get());
}

void Streaming::trace_to(sys::Trace* trace) {
  queue_->set_trace(trace);
  if (trace == nullptr) return;
  for (const OpenedFile& file : files_) trace->name_file(file.direct);
}

bool Streaming::direct() const {
  return std::ranges::all_of(files_, [](const OpenedFile& file) { return file.direct.direct(); });
}

}  // namespace stoke::engine
