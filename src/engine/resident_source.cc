#include "engine/resident_source.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>
#include <utility>

#include "base/check.h"
#include "engine/chunk_reader.h"
#include "pipeline/stream_source.h"
#include "sys/clock.h"
#include "sys/memory.h"

namespace stoke::engine {
namespace {

constexpr size_t kMatrixAlignment = 64;
// How often a waiting acquire looks at the cancel flag, which is set by signal handlers that cannot notify.
constexpr auto kCancelPoll = std::chrono::milliseconds(20);

size_t matrix_bytes(const MatrixSpec& spec) { return static_cast<size_t>(spec.info.rows) * spec.info.row_bytes; }
size_t padded(size_t bytes) { return (bytes + kMatrixAlignment - 1) / kMatrixAlignment * kMatrixAlignment; }

}  // namespace

struct ResidentSource::Loader {
  Loader(WeightPlan plan_in, ResidentOptions options_in) : plan(std::move(plan_in)), options(options_in) {}
  ~Loader();

  Status prepare(const formats::ModelFile& model);
  void start();
  void load_chunks();
  Status load_chunk(ChunkReader& reader, const Chunk& chunk) const;
  // Requires: lock held. True when rows [wanted) of a matrix are all in place.
  bool loaded(int32_t matrix, RowRange wanted) const;
  Status wait_rows(int32_t matrix, RowRange wanted);
  Status wait_chunks(const std::function<bool()>& ready);
  std::byte* row_address(int32_t matrix, int64_t row) const {
    const size_t at = static_cast<size_t>(matrix);
    return arena.data() + offsets[at] + static_cast<size_t>(row) * plan.matrices[at].info.row_bytes;
  }

  const WeightPlan plan;
  const ResidentOptions options;
  std::vector<OpenedFile> files;
  sys::Memory arena;
  std::vector<size_t> offsets;      // of each matrix within the arena
  std::vector<Chunk> chunks;        // in order of loading; those of one matrix lie together, rows ascending
  std::vector<size_t> first_chunk;  // of each matrix
  std::vector<size_t> end_chunk;
  std::unique_ptr<ChunkReader> row_reader;  // read_row()'s own, control thread only
  sys::SystemClock clock;
  int64_t started_ns = 0;

  std::atomic<size_t> next{0};  // first chunk that no thread has taken
  std::atomic<bool> stop{false};
  std::atomic<bool> finished{false};  // everything is in place: no lock needed any more
  mutable std::mutex mutex;
  std::condition_variable progress;
  std::vector<bool> done;  // under mutex, as all below; one a chunk
  size_t chunks_left = 0;
  Status failure;
  ReadCounts counts;
  int64_t finished_ns = 0;
  std::vector<std::thread> threads;
};

ResidentSource::Loader::~Loader() {
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
}

Status ResidentSource::Loader::prepare(const formats::ModelFile& model) {
  const size_t count = plan.matrices.size();
  size_t total = 0;
  for (const MatrixSpec& spec : plan.matrices) {
    const bool converts = spec.stored != spec.info.type;
    CHECK(!converts || (options.conversion.dequantize != nullptr && options.conversion.quantize != nullptr));
    offsets.push_back(total);
    if (!spec.apart) total += padded(matrix_bytes(spec));
  }
  STOKE_ASSIGN(files, open_files(model.files));
  STOKE_ASSIGN(arena, sys::Memory::map(total + kMatrixAlignment));

  // As consumed, but embeddings (layer -1) last: a prompt needs few of their rows, and a tied head needs them at the
  // end.
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t m) {
    const int layer = plan.matrices[static_cast<size_t>(m)].layer;
    return layer < 0 ? INT32_MAX : layer;
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) < rank(b); });
  first_chunk.resize(count);
  end_chunk.resize(count);
  for (const int32_t m : order) {
    first_chunk[static_cast<size_t>(m)] = end_chunk[static_cast<size_t>(m)] = chunks.size();
    if (plan.matrices[static_cast<size_t>(m)].apart) continue;
    STOKE_TRY(plan_chunks(model, plan.matrices[static_cast<size_t>(m)], m, options.chunk_bytes, &chunks));
    end_chunk[static_cast<size_t>(m)] = chunks.size();
  }
  done.assign(chunks.size(), false);
  chunks_left = chunks.size();
  return ok_status();
}

void ResidentSource::Loader::start() {
  started_ns = clock.now_ns();
  row_reader = std::make_unique<ChunkReader>(files, ResidentOptions::Reads::kBuffered, options.conversion);
  if (chunks.empty()) finished.store(true);
  const size_t count = std::min(static_cast<size_t>(std::max(1, options.threads)), chunks.size());
  try {
    for (size_t i = 0; i < count; ++i) threads.emplace_back([this] { load_chunks(); });
  } catch (const std::system_error&) {
    if (threads.empty()) load_chunks();  // a container may allow few threads: any one is enough, if need be our own
  }
}

Status ResidentSource::Loader::load_chunk(ChunkReader& reader, const Chunk& chunk) const {
  const MatrixSpec& spec = plan.matrices[static_cast<size_t>(chunk.matrix)];
  std::byte* to = row_address(chunk.matrix, chunk.rows.begin);
  const Status read = reader.read(spec, chunk, to);
  if (!read.ok()) return read.with("tensor " + spec.name);
  const Piece& piece = spec.pieces[static_cast<size_t>(chunk.piece)];
  if (options.checks == nullptr || !spec.verbatim() || piece.row_step != 1) return ok_status();
  const uint64_t bytes = static_cast<uint64_t>(chunk.rows.size()) * spec.info.row_bytes;
  const uint64_t offset =
      piece.extent.offset + static_cast<uint64_t>(piece.row_begin + chunk.piece_row) * spec.info.row_bytes;
  const auto damaged = options.checks->first_damaged(to, offset, bytes);
  return damaged ? pipeline::damaged_matrix(files[piece.extent.file].direct.path(), spec.name, *damaged) : ok_status();
}

void ResidentSource::Loader::load_chunks() {
  ChunkReader reader(files, options.reads, options.conversion);
  ReadCounts before;
  for (size_t i = next.fetch_add(1); i < chunks.size() && !stop.load(); i = next.fetch_add(1)) {
    const Chunk& chunk = chunks[i];
    Status status = load_chunk(reader, chunk);
    if (!status.ok()) status = load_chunk(reader, chunk);  // once more: some errors pass
    const ReadCounts& now = reader.counts();
    const std::lock_guard lock(mutex);
    counts.bytes += now.bytes - before.bytes;
    counts.bytes_direct += now.bytes_direct - before.bytes_direct;
    counts.bytes_missed += now.bytes_missed - before.bytes_missed;
    counts.reads += now.reads - before.reads;
    before = now;
    if (!status.ok()) {
      if (failure.ok()) failure = status;
      stop.store(true);
    } else {
      done[i] = true;
      if (--chunks_left == 0) {
        finished_ns = clock.now_ns();
        finished.store(true, std::memory_order_release);
      }
    }
    progress.notify_all();
  }
}

bool ResidentSource::Loader::loaded(int32_t matrix, RowRange wanted) const {
  const size_t begin = first_chunk[static_cast<size_t>(matrix)];
  const size_t end = end_chunk[static_cast<size_t>(matrix)];
  const auto ends_before = [](const Chunk& chunk, int64_t row) { return chunk.rows.end <= row; };
  const auto from = chunks.begin() + static_cast<std::ptrdiff_t>(begin);
  const auto to = chunks.begin() + static_cast<std::ptrdiff_t>(end);
  auto chunk = std::lower_bound(from, to, wanted.begin, ends_before);
  for (; chunk != to && chunk->rows.begin < wanted.end; ++chunk) {
    if (!done[static_cast<size_t>(chunk - chunks.begin())]) return false;
  }
  return true;
}

Status ResidentSource::Loader::wait_chunks(const std::function<bool()>& ready) {
  std::unique_lock lock(mutex);
  while (!ready()) {
    if (!failure.ok()) return failure;
    if (options.cancel != nullptr && options.cancel->load(std::memory_order_relaxed)) {
      return Status(Code::kCancelled, "stopped while the weights were being read");
    }
    progress.wait_for(lock, kCancelPoll);
  }
  return ok_status();
}

Status ResidentSource::Loader::wait_rows(int32_t matrix, RowRange wanted) {
  if (finished.load(std::memory_order_acquire)) return ok_status();
  return wait_chunks([&] { return loaded(matrix, wanted); });
}

ResidentSource::ResidentSource(std::unique_ptr<Loader> loader) : loader_(std::move(loader)) {}
ResidentSource::~ResidentSource() = default;

Result<std::unique_ptr<ResidentSource>> ResidentSource::open(const formats::ModelFile& model, WeightPlan plan,
                                                             ResidentOptions options) {
  auto loader = std::make_unique<Loader>(std::move(plan), options);
  const Status prepared = loader->prepare(model);
  if (!prepared.ok()) return prepared.with(model.path);
  loader->start();
  return std::unique_ptr<ResidentSource>(new ResidentSource(std::move(loader)));
}

const model::MatrixInfo& ResidentSource::matrix(model::MatrixId id) const {
  return loader_->plan.matrices[static_cast<size_t>(id.index)].info;
}

Result<RowsView> ResidentSource::acquire(model::MatrixId id, RowRange wanted) {
  const model::MatrixInfo& info = matrix(id);
  CHECK(wanted.begin >= 0 && wanted.begin < wanted.end && wanted.end <= info.rows);
  CHECK(!loader_->plan.matrices[static_cast<size_t>(id.index)].apart);
  STOKE_TRY(loader_->wait_rows(id.index, wanted));
  return RowsView{info.type, wanted, info.cols, info.row_bytes, loader_->row_address(id.index, wanted.begin)};
}

void ResidentSource::release(model::MatrixId, const RowsView&) {}  // nothing ever moves

Status ResidentSource::read_row(model::MatrixId id, int64_t row, std::byte* dst) {
  const model::MatrixInfo& info = matrix(id);
  CHECK(row >= 0 && row < info.rows);
  Loader& loader = *loader_;
  const RowRange wanted = {row, row + 1};
  const auto at = static_cast<size_t>(id.index);
  bool there = loader.finished.load(std::memory_order_acquire);
  if (!there) {
    const std::lock_guard lock(loader.mutex);
    there = loader.loaded(id.index, wanted);
  }
  // A row alone cannot be held against a checksum, which it shares with others.
  if (!there && loader.options.checks == nullptr && !needs_whole_piece(loader.plan.matrices[at])) {
    const auto from = loader.chunks.begin() + static_cast<std::ptrdiff_t>(loader.first_chunk[at]);
    const auto to = loader.chunks.begin() + static_cast<std::ptrdiff_t>(loader.end_chunk[at]);
    const auto holder = std::lower_bound(from, to, row, [](const Chunk& c, int64_t r) { return c.rows.end <= r; });
    Chunk single = *holder;
    single.piece_row += row - single.rows.begin;
    single.rows = wanted;
    return loader.row_reader->read(loader.plan.matrices[at], single, dst);
  }
  STOKE_TRY(loader.wait_rows(id.index, wanted));
  std::memcpy(dst, loader.row_address(id.index, row), info.row_bytes);
  return ok_status();
}

Status ResidentSource::wait_all() {
  return loader_->wait_chunks([&] { return loader_->chunks_left == 0; });
}

LoadStats ResidentSource::stats() const {
  const Loader& loader = *loader_;
  const std::lock_guard lock(loader.mutex);
  const bool finished = loader.chunks_left == 0;
  const int64_t end = finished ? loader.finished_ns : loader.clock.now_ns();
  return {.finished = finished,
          .bytes_read = loader.counts.bytes,
          .bytes_read_direct = loader.counts.bytes_direct,
          .bytes_missed = loader.counts.bytes_missed,
          .reads = loader.counts.reads,
          .arena_bytes = loader.arena.size(),
          .seconds = static_cast<double>(end - loader.started_ns) * 1e-9};
}

}  // namespace stoke::engine
