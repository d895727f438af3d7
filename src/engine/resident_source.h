// The weight source for models that fit: all matrices in one arena that we own, filled by background threads.
//
// open() returns at once; loading runs in the order in which a forward pass needs the matrices, and acquire() waits
// only for the rows it was asked for, so computing starts while later layers are still on their way. Chunks that the
// page cache holds are copied from it; others are read directly, past it, in large requests: loading leaves the page
// cache as it was. Embeddings come last: until then read_row() fetches single rows itself.
//
// Thread role: acquire, release, read_row, wait_all by the control thread. Loader threads write rows that nobody can
// have leased yet, and end with the last chunk. Ownership: the arena lives as long as the source.
// Memory: the arena (weights, each matrix rounded up to 64 bytes) and, while loading, one read buffer a loader thread.
// Errors: a read that fails surfaces from acquire/read_row/wait_all as kIo or kCorrupt naming file and offset.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/weight_plan.h"
#include "formats/model_file.h"
#include "model/weight_source.h"
#include "sys/checked_ranges.h"

namespace stoke::engine {

// Row conversion for matrices whose stored type differs from the type in memory; the kernels' functions in the program.
struct RowConversion {
  void (*dequantize)(DType type, const void* row, float* out, int64_t n) = nullptr;
  void (*quantize)(DType type, const float* row, void* out, int64_t n) = nullptr;
};

struct ResidentOptions {
  enum class Reads { kAuto, kBuffered, kDirect };  // kAuto asks for each chunk whether the page cache holds it
  Reads reads = Reads::kAuto;
  int threads = 4;  // also the depth of the queue at the disk
  size_t chunk_bytes = size_t{4} << 20;
  RowConversion conversion;                    // needed only where a matrix is converted
  const sys::CheckedRanges* checks = nullptr;  // of the first file: what is read is held against them
  const std::atomic<bool>* cancel = nullptr;   // when it becomes true, waiting acquires fail with kCancelled
};

struct LoadStats {
  bool finished = false;
  uint64_t bytes_read = 0;         // from files, by any way
  uint64_t bytes_read_direct = 0;  // of these past the page cache
  uint64_t bytes_missed = 0;       // of the others, what the page cache did not hold; where nobody may tell, all
  uint64_t reads = 0;
  uint64_t arena_bytes = 0;
  double seconds = 0;  // until the last chunk came, or until now
};

class ResidentSource final : public model::WeightSource {
 public:
  // Takes the arena, opens the files and starts loading. kCorrupt when a piece does not fit its matrix or file,
  // kNoMemory when the arena is refused.
  static Result<std::unique_ptr<ResidentSource>> open(const formats::ModelFile& model, WeightPlan plan,
                                                      ResidentOptions options);
  // Stops loading (within one chunk's read) and joins.
  ~ResidentSource() override;

  const model::MatrixInfo& matrix(model::MatrixId id) const override;
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override;
  void release(model::MatrixId id, const RowsView& rows) override;
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override;

  // Waits until everything is there.
  Status wait_all();
  LoadStats stats() const;

 private:
  struct Loader;
  explicit ResidentSource(std::unique_ptr<Loader> loader);
  std::unique_ptr<Loader> loader_;
};

}  // namespace stoke::engine
