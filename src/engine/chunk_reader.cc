#include "engine/chunk_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "sys/residency.h"

namespace stoke::engine {
namespace {

using formats::Extent;

constexpr int64_t kRowsTogether = 16;  // that share a checksum in a neuron store

// Bytes of one source row in a piece's extent. Requires: not transposed.
uint64_t stored_row_bytes(const MatrixSpec& spec) {
  if (spec.layout == PieceLayout::kMxfp4Split) return static_cast<uint64_t>(spec.info.cols) / 2;
  return row_bytes(spec.stored, spec.info.cols);
}

uint64_t scale_row_bytes(const MatrixSpec& spec) { return static_cast<uint64_t>(spec.info.cols) / 32; }

Status bad_piece(const MatrixSpec& spec, const std::string& what) {
  return Status(Code::kCorrupt, fmt::format("tensor {}: {}", spec.name, what));
}

Status check_extent(const formats::ModelFile& model, const MatrixSpec& spec, const Extent& extent, uint64_t bytes) {
  if (extent.file >= model.files.size()) return bad_piece(spec, fmt::format("lies in file {}", extent.file));
  const uint64_t size = model.file_sizes[extent.file];
  if (extent.bytes < bytes) {
    return bad_piece(spec, fmt::format("needs {} bytes, but {} are stored", bytes, extent.bytes));
  }
  if (extent.offset > size || bytes > size - extent.offset) {
    return bad_piece(spec, fmt::format("{} bytes at offset {} reach past the end of {} ({} bytes)", bytes,
                                       extent.offset, model.files[extent.file], size));
  }
  return ok_status();
}

Status check_piece(const formats::ModelFile& model, const MatrixSpec& spec, const Piece& piece) {
  const bool rows_fit = piece.rows >= 1 && piece.row_begin >= 0 && piece.row_step >= 1 &&
                        piece.row_begin + (piece.rows - 1) * piece.row_step < piece.source_rows;
  if (!rows_fit) {
    return bad_piece(spec, fmt::format("{} rows from {} in steps of {} do not fit {} rows", piece.rows, piece.row_begin,
                                       piece.row_step, piece.source_rows));
  }
  const auto source_rows = static_cast<uint64_t>(piece.source_rows);
  if (spec.layout == PieceLayout::kTransposed) {
    const uint64_t bytes = source_rows * static_cast<uint64_t>(spec.info.cols) * row_bytes(spec.stored, 1);
    return check_extent(model, spec, piece.extent, bytes);
  }
  if (spec.layout == PieceLayout::kMxfp4Split) {
    STOKE_TRY(check_extent(model, spec, piece.scales, source_rows * scale_row_bytes(spec)));
  }
  return check_extent(model, spec, piece.extent, source_rows * stored_row_bytes(spec));
}

}  // namespace

Result<std::vector<OpenedFile>> open_files(const std::vector<std::string>& paths) {
  std::vector<OpenedFile> files;
  for (const std::string& path : paths) {
    STOKE_ASSIGN(sys::File buffered, sys::File::open_read(path));
    // A part that the page cache holds would drag the next one into it, and so on to the end.
    buffered.no_read_ahead();
    STOKE_ASSIGN(sys::File direct, sys::File::open_direct(path));
    files.push_back({std::move(buffered), std::move(direct)});
  }
  return files;
}

Status plan_chunks(const formats::ModelFile& model, const MatrixSpec& spec, int32_t matrix, size_t chunk_bytes,
                   std::vector<Chunk>* out) {
  int64_t row = 0;
  for (size_t p = 0; p < spec.pieces.size(); ++p) {
    const Piece& piece = spec.pieces[p];
    STOKE_TRY(check_piece(model, spec, piece));
    const auto step = static_cast<uint64_t>(piece.row_step);
    int64_t rows_per_chunk = piece.rows;
    if (!needs_whole_piece(spec)) {
      const uint64_t row_cost = std::max<uint64_t>(stored_row_bytes(spec) * step, 1);
      rows_per_chunk = std::max<int64_t>(1, static_cast<int64_t>(chunk_bytes / row_cost));
      if (rows_per_chunk > kRowsTogether) rows_per_chunk -= rows_per_chunk % kRowsTogether;
    }
    for (int64_t begin = 0; begin < piece.rows; begin += rows_per_chunk) {
      const int64_t count = std::min(rows_per_chunk, piece.rows - begin);
      out->push_back({matrix, static_cast<int32_t>(p), begin, {row + begin, row + begin + count}});
    }
    row += piece.rows;
  }
  if (row != spec.info.rows) return bad_piece(spec, fmt::format("has {} rows, not {}", row, spec.info.rows));
  return ok_status();
}

Status ChunkReader::Buffer::reserve(size_t bytes) {
  if (memory.size() >= bytes) return ok_status();
  STOKE_ASSIGN(memory, sys::Memory::map(bytes));
  return ok_status();
}

Status ChunkReader::read(const MatrixSpec& spec, const Chunk& chunk, std::byte* dst) {
  const Piece& piece = spec.pieces[static_cast<size_t>(chunk.piece)];
  if (!spec.verbatim() || piece.row_step != 1) return read_converted(spec, chunk, dst);
  const uint64_t row_bytes = stored_row_bytes(spec);
  const auto first = static_cast<uint64_t>(piece.row_begin + chunk.piece_row);
  const Extent extent = {piece.extent.file, piece.extent.offset + first * row_bytes,
                         static_cast<uint64_t>(chunk.rows.size()) * row_bytes};
  return read_extent(extent, dst);
}

Status ChunkReader::read_extent(const Extent& extent, std::byte* dst) {
  const OpenedFile& file = files_[extent.file];
  std::optional<double> cached;
  if (reads_ == ResidentOptions::Reads::kAuto) {
    cached = sys::cached_share(file.buffered, extent.offset, extent.bytes);
  }
  // Where nobody may tell, a buffered read is never wrong, only sometimes slower.
  const bool known_cold = cached.value_or(1.0) < 0.5;
  const bool direct = reads_ == ResidentOptions::Reads::kDirect || known_cold;
  counts_.bytes += extent.bytes;
  ++counts_.reads;
  if (direct && file.direct.direct()) return read_direct(file.direct, extent.offset, extent.bytes, dst);
  const double missed = (1 - cached.value_or(0.0)) * static_cast<double>(extent.bytes);
  counts_.bytes_missed += static_cast<uint64_t>(missed);
  STOKE_TRY(file.buffered.pread_full(dst, extent.bytes, extent.offset));
  if (known_cold) file.buffered.drop_cached(extent.offset, extent.bytes);  // only we brought it there
  return ok_status();
}

// An aligned superset goes into the bounce buffer, the wanted part from there to its place: the copy costs a tenth of
// what the disk takes, runs while other threads wait for it, and lets matrices lie close together.
Status ChunkReader::read_direct(const sys::File& file, uint64_t offset, size_t bytes, std::byte* dst) {
  const uint64_t unit = file.alignment();
  const uint64_t begin = offset / unit * unit;
  const size_t lead = offset - begin;
  const size_t superset = (lead + bytes + unit - 1) / unit * unit;
  STOKE_TRY(bounce_.reserve(superset));
  STOKE_TRY(file.pread_some(bounce_.memory.data(), superset, lead + bytes, begin));
  counts_.bytes_direct += bytes;
  std::memcpy(dst, bounce_.memory.data() + lead, bytes);
  return ok_status();
}

Status ChunkReader::read_converted(const MatrixSpec& spec, const Chunk& chunk, std::byte* dst) {
  const Piece& piece = spec.pieces[static_cast<size_t>(chunk.piece)];
  if (needs_whole_piece(spec)) {
    STOKE_TRY(source_.reserve(piece.extent.bytes));
    STOKE_TRY(read_extent(piece.extent, source_.memory.data()));
    convert_rows(spec, piece, source_.memory.data(), nullptr, dst);
    return ok_status();
  }
  const auto first = static_cast<uint64_t>(piece.row_begin + chunk.piece_row * piece.row_step);
  const auto span = static_cast<uint64_t>((chunk.rows.size() - 1) * piece.row_step + 1);  // source rows to be read
  const auto part = [&](const Extent& whole, uint64_t row_bytes) {
    return Extent{whole.file, whole.offset + first * row_bytes, span * row_bytes};
  };
  const Extent data = part(piece.extent, stored_row_bytes(spec));
  STOKE_TRY(source_.reserve(data.bytes));
  STOKE_TRY(read_extent(data, source_.memory.data()));
  const std::byte* scale_data = nullptr;
  if (spec.layout == PieceLayout::kMxfp4Split) {
    const Extent scales = part(piece.scales, scale_row_bytes(spec));
    STOKE_TRY(scales_.reserve(scales.bytes));
    STOKE_TRY(read_extent(scales, scales_.memory.data()));
    scale_data = scales_.memory.data();
  }
  // The same piece as decode_row() sees it, counted from the first row that was read.
  const Piece local = {.extent = {},
                       .scales = {},
                       .rows = chunk.rows.size(),
                       .source_rows = static_cast<int64_t>(span),
                       .row_begin = 0,
                       .row_step = piece.row_step};
  convert_rows(spec, local, source_.memory.data(), scale_data, dst);
  return ok_status();
}

void ChunkReader::convert_rows(const MatrixSpec& spec, const Piece& local, const std::byte* data,
                               const std::byte* scales, std::byte* dst) {
  const int64_t cols = spec.info.cols;
  const bool same_type = spec.stored == spec.info.type;
  row_.resize(row_bytes(spec.stored, cols));
  floats_.resize(static_cast<size_t>(cols));
  for (int64_t row = 0; row < local.rows; ++row) {
    std::byte* out = dst + static_cast<size_t>(row) * spec.info.row_bytes;
    decode_row(spec, local, data, scales, row, same_type ? out : row_.data());
    if (same_type) continue;
    conversion_.dequantize(spec.stored, row_.data(), floats_.data(), cols);
    conversion_.quantize(spec.info.type, floats_.data(), out, cols);
  }
}

}  // namespace stoke::engine
