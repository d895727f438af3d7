// Carries out one chunk of a weight plan: reads rows of a piece from its file and writes them as they lie in memory.
//
// Used by resident_source.h. Thread role: plan_chunks by the control thread; one ChunkReader a loader thread, all
// sharing the const ModelFiles. Ownership: a ChunkReader owns its buffers; files and plan outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/resident_source.h"
#include "engine/weight_plan.h"
#include "sys/files.h"
#include "sys/memory.h"

namespace stoke::engine {

// Each file opened twice.
struct OpenedFile {
  sys::File buffered;
  sys::File direct;  // falls back to buffered reads where the file system refuses; see sys/file.h
};
Result<std::vector<OpenedFile>> open_files(const std::vector<std::string>& paths);

// Rows [rows.begin, rows.end) of a matrix, all from one piece.
struct Chunk {
  int32_t matrix = 0;
  int32_t piece = 0;
  int64_t piece_row = 0;  // row of the piece that rows.begin is
  RowRange rows;
};

// Cuts one matrix into chunks of about chunk_bytes. kCorrupt when pieces and matrix or file disagree.
Status plan_chunks(const formats::ModelFile& model, const MatrixSpec& spec, int32_t matrix, size_t chunk_bytes,
                   std::vector<Chunk>* out);
// Where a piece has to be in memory whole before any of its rows can be had.
inline bool needs_whole_piece(const MatrixSpec& spec) { return spec.layout == PieceLayout::kTransposed; }

struct ReadCounts {
  uint64_t bytes = 0;
  uint64_t bytes_direct = 0;
  uint64_t bytes_missed = 0;  // of the others, what the page cache did not hold; where nobody may tell, all
  uint64_t reads = 0;
};

class ChunkReader {
 public:
  ChunkReader(const std::vector<OpenedFile>& files, ResidentOptions::Reads reads, RowConversion conversion)
      : files_(files), reads_(reads), conversion_(conversion) {}

  // Writes the chunk's rows to dst, info.row_bytes each.
  Status read(const MatrixSpec& spec, const Chunk& chunk, std::byte* dst);
  const ReadCounts& counts() const { return counts_; }

 private:
  // A buffer that grows to what was asked of it.
  struct Buffer {
    sys::Memory memory;
    Status reserve(size_t bytes);
  };

  Status read_extent(const formats::Extent& extent, std::byte* dst);
  Status read_direct(const sys::File& file, uint64_t offset, size_t bytes, std::byte* dst);
  Status read_converted(const MatrixSpec& spec, const Chunk& chunk, std::byte* dst);
  void convert_rows(const MatrixSpec& spec, const Piece& local, const std::byte* data, const std::byte* scales,
                    std::byte* dst);

  const std::vector<OpenedFile>& files_;
  const ResidentOptions::Reads reads_;
  const RowConversion conversion_;
  ReadCounts counts_;
  Buffer bounce_;  // direct reads
  Buffer source_;  // rows as stored
  Buffer scales_;  // kMxfp4Split
  std::vector<std::byte> row_;
  std::vector<float> floats_;
};

}  // namespace stoke::engine
