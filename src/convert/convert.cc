#include "convert/convert.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "convert/down_columns.h"
#include "convert/part_file.h"
#include "convert/row_reader.h"
#include "convert/store_plan.h"
#include "formats/store_verify.h"
#include "sys/checksum.h"
#include "sys/files.h"
#include "sys/memory.h"
#include "sys/thread_pool.h"

namespace stoke::convert {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;  // read and written at once
constexpr int64_t kNeuronsAtOnce = 4 * kColumnTile;

// A tensor, or one expert's records.
struct Piece {
  size_t step = 0;
  int64_t expert = 0;
  uint64_t bytes = 0;
};

class Converter {
 public:
  Converter(const StorePlan& plan, const std::vector<engine::OpenedFile>& files, PartFile part,
            const ConvertOptions& options)
      : plan_(plan),
        files_(files),
        part_(std::move(part)),
        options_(options),
        reader_(files, plan.model.plan),
        pool_(std::max(1, options.threads)),
        floats_(static_cast<size_t>(pool_.size())) {}

  Status write_all();
  PartFile& part() { return part_; }
  uint64_t resumed() const { return progress_.resumed; }

 private:
  const formats::StoreHeader::Tensor& tensor(size_t step) const { return plan_.header.tensors()[step]; }
  std::vector<Piece> list_pieces() const;
  Status write_piece(const Piece& piece);
  Status write_rows(const Piece& piece);
  Status gather_gates(const LayerFfn& ffn, RowRange rows, size_t row_bytes);
  Status write_scales(const Piece& piece, int which);
  Status write_factors(const Piece& piece);
  Status write_records(const Piece& piece);
  Status write_ordered(const Piece& piece, const LayerFfn& ffn, const DownView& down, uint64_t base);
  Status pack_records(const LayerFfn& ffn, int64_t expert, const DownView& down, RowRange neurons);
  Status load_down(const LayerFfn& ffn, int64_t expert, DownView* out);
  Status put(const Piece& piece, uint64_t offset, std::span<const std::byte> bytes);
  Status reserve(sys::Memory* memory, uint64_t bytes);
  Status advance(uint64_t bytes);

  const StorePlan& plan_;
  const std::vector<engine::OpenedFile>& files_;
  PartFile part_;
  const ConvertOptions& options_;
  RowReader reader_;
  sys::ThreadPool pool_;
  std::vector<std::vector<float>> floats_;  // one a worker
  sys::Memory down_;                        // of one expert
  std::vector<float> factors_;              // of its rows
  sys::Memory rows_;                        // gate's and up's of a tile
  sys::Memory whole_;                       // an expert's gates or records, where neurons are ordered
  sys::Memory out_;                         // what is about to be written
  ConvertProgress progress_;
};

std::vector<Piece> Converter::list_pieces() const {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    const int64_t experts = step.kind == Step::Kind::kRecords ? plan_.layers[step.layer].experts : 1;
    for (int64_t e = 0; e < experts; ++e) {
      pieces.push_back({.step = i, .expert = e, .bytes = tensor(i).bytes / static_cast<uint64_t>(experts)});
    }
  }
  return pieces;
}

Status Converter::advance(uint64_t bytes) {
  progress_.done += bytes;
  if (!options_.progress || options_.progress(progress_)) return ok_status();
  return Status(Code::kCancelled,
                fmt::format("stopped; what is done stays in {}: the same command goes on from there", part_.path()));
}

Status Converter::reserve(sys::Memory* memory, uint64_t bytes) {
  if (memory->size() >= bytes) return ok_status();
  STOKE_ASSIGN(*memory, sys::Memory::map(bytes));
  return ok_status();
}

// Bytes of a tensor from a unit's beginning to a unit's end.
Status Converter::put(const Piece& piece, uint64_t offset, std::span<const std::byte> bytes) {
  const formats::StoreHeader::Tensor& to = tensor(piece.step);
  CHECK(offset + bytes.size() <= to.bytes);
  formats::StoreChecksums& checksums = part_.checksums();
  formats::add_checksums(bytes, to.unit_bytes, to.records ? &checksums.records : &checksums.matrices);
  STOKE_TRY(part_.write(to.offset + offset, bytes));
  return advance(bytes.size());
}

Status Converter::write_rows(const Piece& piece) {
  const formats::StoreHeader::Tensor& to = tensor(piece.step);
  const Step& step = plan_.steps[piece.step];
  const uint64_t chunk = std::max<uint64_t>(1, kChunkBytes / to.unit_bytes) * to.unit_bytes;
  const uint64_t row_bytes = to.unit_bytes / static_cast<uint64_t>(formats::kChecksumRows);
  STOKE_TRY(reserve(&out_, std::min(chunk, to.bytes)));
  for (uint64_t at = 0; at < to.bytes; at += chunk) {
    const uint64_t bytes = std::min(chunk, to.bytes - at);
    const RowRange rows = {static_cast<int64_t>(at / row_bytes), static_cast<int64_t>((at + bytes) / row_bytes)};
    if (step.kind == Step::Kind::kCopy) {
      STOKE_TRY(files_[step.extent.file].buffered.pread_full(out_.data(), bytes, step.extent.offset + at));
    } else if (step.kind == Step::Kind::kGates && !plan_.layers[step.layer].order.empty()) {
      STOKE_TRY(gather_gates(plan_.layers[step.layer], rows, row_bytes));
    } else {
      STOKE_TRY(reader_.read(step.rows, rows, out_.data()));
    }
    STOKE_TRY(put(piece, at, {out_.data(), bytes}));
  }
  return ok_status();
}

// Gate rows of the places [rows.begin, rows.end), of all experts together, into out_. An expert's are read whole: its
// neurons come from all over.
Status Converter::gather_gates(const LayerFfn& ffn, RowRange rows, size_t row_bytes) {
  const int64_t neurons = ffn.gate.rows;
  STOKE_TRY(reserve(&whole_, static_cast<size_t>(neurons) * row_bytes));
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t expert = row / neurons;
    if (row == rows.begin || row % neurons == 0) {
      STOKE_TRY(reader_.read(ffn.gate, {expert * neurons, (expert + 1) * neurons}, whole_.data()));
    }
    const auto from = static_cast<size_t>(ffn.source_of(expert, row % neurons));
    std::copy_n(whole_.data() + from * row_bytes, row_bytes,
                out_.data() + static_cast<size_t>(row - rows.begin) * row_bytes);
  }
  return ok_status();
}

Status Converter::load_down(const LayerFfn& ffn, int64_t expert, DownView* out) {
  const engine::MatrixSpec& spec = plan_.model.plan.matrices[static_cast<size_t>(ffn.down.id.index)];
  STOKE_TRY(reserve(&down_, static_cast<uint64_t>(ffn.down.rows) * spec.info.row_bytes));
  const model::MatrixSlice slice = ffn.down.expert(expert);
  STOKE_TRY(reader_.read(slice.id, slice.rows, down_.data()));
  *out = {.type = spec.info.type, .dim = slice.rows.size(), .ffn = spec.info.cols, .data = down_.data()};
  if (ffn.record.down_encoding == DownEncoding::kCodes) return ok_status();
  factors_.resize(static_cast<size_t>(out->dim));
  row_factors(*out, factors_.data());
  out->factors = factors_.data();
  return ok_status();
}

Status Converter::write_scales(const Piece& piece, int which) {
  const LayerFfn& ffn = plan_.layers[plan_.steps[piece.step].layer];
  std::vector<uint16_t> scales(tensor(piece.step).bytes / sizeof(uint16_t));
  const size_t each = scales.size() / static_cast<size_t>(ffn.experts);
  std::vector<uint16_t> source(each);
  for (int64_t e = 0; e < ffn.experts; ++e) {
    DownView down;
    STOKE_TRY(load_down(ffn, e, &down));
    extract_scales(down, which, source.data());
    uint16_t* const to = scales.data() + static_cast<size_t>(e) * each;
    for (int64_t block = 0; block < ffn.up.rows / kCodeBlock; ++block) {
      const int64_t from = ffn.source_of(e, block * kCodeBlock) / kCodeBlock;
      std::copy_n(source.data() + from * down.dim, down.dim, to + block * down.dim);
    }
  }
  return put(piece, 0, std::as_bytes(std::span(scales)));
}

Status Converter::write_factors(const Piece& piece) {
  const LayerFfn& ffn = plan_.layers[plan_.steps[piece.step].layer];
  std::vector<float> factors(static_cast<size_t>(ffn.experts * ffn.down.rows));
  for (int64_t e = 0; e < ffn.experts; ++e) {
    DownView down;
    STOKE_TRY(load_down(ffn, e, &down));
    std::copy_n(down.factors, down.dim, factors.data() + e * down.dim);
  }
  return put(piece, 0, std::as_bytes(std::span(factors)));
}

// Records of neurons of an expert into out_. What no part covers is zeros.
Status Converter::pack_records(const LayerFfn& ffn, int64_t expert, const DownView& down, RowRange neurons) {
  const NeuronRecord& record = ffn.record;
  const auto count = static_cast<size_t>(neurons.size());
  STOKE_TRY(reserve(&out_, count * record.record_bytes));
  std::fill_n(out_.data(), count * record.record_bytes, std::byte{0});
  const auto place_rows = [&](const model::ExpertSlices& slices, DType type, size_t offset) -> Status {
    const size_t row = row_bytes(type, record.dim);
    STOKE_TRY(reserve(&rows_, count * row));
    const int64_t base = expert * slices.rows;
    STOKE_TRY(reader_.read(slices, {base + neurons.begin, base + neurons.end}, rows_.data()));
    for (size_t i = 0; i < count; ++i) {
      std::copy_n(rows_.data() + i * row, row, out_.data() + i * record.record_bytes + offset);
    }
    return ok_status();
  };
  if (record.layout == RecordLayout::kBundle) STOKE_TRY(place_rows(ffn.gate, record.gate_type, record.gate_offset));
  STOKE_TRY(place_rows(ffn.up, record.up_type, record.up_offset));
  pool_.parallel_for(neurons.size(), kColumnTile, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t at = begin; at < end; at += kColumnTile) {
      const RowRange columns = {neurons.begin + at, neurons.begin + std::min(at + kColumnTile, end)};
      encode_columns(down, record, columns, &floats_[static_cast<size_t>(worker)],
                     out_.data() + static_cast<size_t>(at) * record.record_bytes);
    }
  });
  return ok_status();
}

Status Converter::write_records(const Piece& piece) {
  const LayerFfn& ffn = plan_.layers[plan_.steps[piece.step].layer];
  DownView down;
  STOKE_TRY(load_down(ffn, piece.expert, &down));
  const uint64_t base = static_cast<uint64_t>(piece.expert) * piece.bytes;
  if (!ffn.order.empty()) return write_ordered(piece, ffn, down, base);
  for (int64_t first = 0; first < ffn.up.rows; first += kNeuronsAtOnce) {
    const RowRange neurons = {first, std::min(first + kNeuronsAtOnce, ffn.up.rows)};
    STOKE_TRY(pack_records(ffn, piece.expert, down, neurons));
    const auto offset = static_cast<uint64_t>(first) * ffn.record.record_bytes;
    STOKE_TRY(put(piece, base + offset, {out_.data(), static_cast<size_t>(neurons.size()) * ffn.record.record_bytes}));
  }
  return ok_status();
}

// Packed in the source's order, which reads well, and put in their places in memory.
Status Converter::write_ordered(const Piece& piece, const LayerFfn& ffn, const DownView& down, uint64_t base) {
  const size_t bytes = ffn.record.record_bytes;
  std::vector<size_t> place(static_cast<size_t>(ffn.up.rows));
  for (size_t i = 0; i < place.size(); ++i) {
    place[static_cast<size_t>(ffn.source_of(piece.expert, static_cast<int64_t>(i)))] = i;
  }
  STOKE_TRY(reserve(&whole_, place.size() * bytes));
  for (int64_t first = 0; first < ffn.up.rows; first += kNeuronsAtOnce) {
    const RowRange neurons = {first, std::min(first + kNeuronsAtOnce, ffn.up.rows)};
    STOKE_TRY(pack_records(ffn, piece.expert, down, neurons));
    for (int64_t i = 0; i < neurons.size(); ++i) {
      std::copy_n(out_.data() + static_cast<size_t>(i) * bytes, bytes,
                  whole_.data() + place[static_cast<size_t>(first + i)] * bytes);
    }
  }
  for (size_t first = 0; first < place.size(); first += kNeuronsAtOnce) {
    const size_t count = std::min<size_t>(kNeuronsAtOnce, place.size() - first);
    STOKE_TRY(put(piece, base + first * bytes, {whole_.data() + first * bytes, count * bytes}));
  }
  return ok_status();
}

Status Converter::write_piece(const Piece& piece) {
  switch (plan_.steps[piece.step].kind) {
    case Step::Kind::kCopy:
    case Step::Kind::kRows:
    case Step::Kind::kGates:
      return write_rows(piece);
    case Step::Kind::kFiring:
      return put(piece, 0, std::as_bytes(std::span(plan_.firing)));
    case Step::Kind::kScales:
      return write_scales(piece, 0);
    case Step::Kind::kMins:
      return write_scales(piece, 1);
    case Step::Kind::kFactors:
      return write_factors(piece);
    case Step::Kind::kRecords:
      break;
  }
  return write_records(piece);
}

Status Converter::write_all() {
  const std::vector<Piece> pieces = list_pieces();
  progress_.total = plan_.header.file_bytes();
  const size_t done = std::min(part_.pieces_done(), pieces.size());
  for (size_t i = 0; i < done; ++i) progress_.resumed += pieces[i].bytes;
  progress_.done = progress_.resumed;
  const std::string& head = plan_.header.bytes();
  STOKE_TRY(part_.write(0, std::as_bytes(std::span(head))));
  uint64_t since_commit = 0;
  for (size_t i = done; i < pieces.size(); ++i) {
    STOKE_TRY(write_piece(pieces[i]));
    since_commit += pieces[i].bytes;
    if (since_commit < options_.commit_bytes) continue;
    STOKE_TRY(part_.commit(i + 1));
    since_commit = 0;
  }
  const std::string tail = plan_.header.tail(part_.checksums());
  STOKE_TRY(part_.write(plan_.header.tail_offset(), std::as_bytes(std::span(tail))));
  return part_.commit(pieces.size());
}

// Tells this work from any other that might have left a journal under the same name.
Result<uint64_t> identity_of(const StorePlan& plan) {
  std::string text = plan.header.bytes();
  for (const LayerFfn& layer : plan.layers) {
    text += fmt::format("{:x} ", sys::checksum64(layer.order.data(), layer.order.size() * sizeof(int32_t)));
  }
  text += fmt::format("{:x}\n", sys::checksum64(plan.firing.data(), plan.firing.size() * sizeof(uint16_t)));
  for (const std::string& path : plan.source.files) {
    struct stat st = {};
    if (::stat(path.c_str(), &st) != 0) return Status(Code::kIo, fmt::format("{}: cannot look at it", path));
    text += fmt::format("{} {} {}.{}\n", path.substr(path.rfind('/') + 1), st.st_size, st.st_mtim.tv_sec,
                        st.st_mtim.tv_nsec);
  }
  return sys::checksum64(text.data(), text.size());
}

// Of a part that an earlier call left, in blocks that are really there.
uint64_t allocated_bytes(const std::string& path) {
  struct stat st = {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<uint64_t>(st.st_blocks) * 512 : 0;
}

Status check_output(const std::string& output, uint64_t bytes) {
  constexpr double kMiB = 1 << 20;
  struct stat st = {};
  if (::stat(output.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    return Status(Code::kInvalid, fmt::format("{}: exists and is not a regular file: name another output", output));
  }
  STOKE_ASSIGN(const uint64_t room, sys::free_space(output));
  const uint64_t there = std::min(bytes, allocated_bytes(output + ".part"));
  if (bytes - there <= room) return ok_status();
  return Status(Code::kNoSpace,
                fmt::format("{}: needs {:.1f} MiB more but {:.1f} MiB are free there: make room or write "
                            "elsewhere",
                            output, static_cast<double>(bytes - there) / kMiB, static_cast<double>(room) / kMiB));
}

Status verify(const std::string& path, const ConvertOptions& options) {
  STOKE_ASSIGN(formats::ModelFile written, formats::open_model_file(path));
  STOKE_ASSIGN(const formats::NeuronStore store, formats::read_neuron_store(written));
  return formats::verify_store(written, store, [&](uint64_t done, uint64_t total) {
    return !options.progress || options.progress({.verifying = true, .done = done, .total = total});
  });
}

Status on_full_disk(const Status& status, const std::string& output) {
  if (status.code() != Code::kNoSpace) return status;
  return Status(Code::kNoSpace,
                fmt::format("{}; what was written stays in {}.part: make room and give the same command "
                            "again, or remove it",
                            status.message(), output));
}

Result<std::optional<DType>> parse_quant(const std::string& name) {
  if (name.empty()) return std::optional<DType>();
  const DTypeInfo* found = find_dtype(name);
  if (found == nullptr) return Status(Code::kInvalid, fmt::format("--quant {}: no element type of that name", name));
  return std::optional(found->type);
}

ConvertSummary summary_of(const StorePlan& plan, uint64_t resumed) {
  ConvertSummary out{.bytes = plan.header.file_bytes(),
                     .resumed = resumed,
                     .layers = static_cast<int64_t>(plan.layers.size()),
                     .record_bytes = plan.layers.front().record.record_bytes,
                     .up = info(plan.layers.front().record.up_type).name,
                     .down = plan.down};
  for (const LayerFfn& layer : plan.layers) out.neurons += layer.experts * layer.up.rows;
  return out;
}

}  // namespace

Result<ConvertSummary> convert(const ConvertOptions& options) {
  PlanOptions how{.layout = options.layout, .down = options.down, .ffn_act = options.ffn_act, .stats = options.stats};
  STOKE_ASSIGN(how.quant, parse_quant(options.quant));
  STOKE_ASSIGN(const StorePlan plan, plan_store(options.model, how));
  STOKE_TRY(check_output(options.output, plan.header.file_bytes()));
  STOKE_ASSIGN(const std::vector<engine::OpenedFile> files, engine::open_files(plan.source.files));
  STOKE_ASSIGN(const uint64_t identity, identity_of(plan));
  STOKE_ASSIGN(PartFile part, PartFile::open(options.output, identity, plan.header.file_bytes()));
  Converter converter(plan, files, std::move(part), options);
  Status written = converter.write_all();
  if (!written.ok()) return on_full_disk(written, options.output);
  Status verified = verify(converter.part().path(), options);
  if (verified.code() == Code::kCorrupt) converter.part().discard();
  STOKE_TRY(verified);
  STOKE_TRY(converter.part().finish());
  return summary_of(plan, converter.resumed());
}

}  // namespace stoke::convert
