#include "formats/synth_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/output_file.h"
#include "formats/store_header.h"
#include "formats/synth_header.h"
#include "formats/synth_rows.h"
#include "formats/synth_stats.h"
#include "formats/synth_tensor.h"

namespace stoke::formats {
namespace {

constexpr int64_t kRecordsAtOnce = 256;

DType down_type(DType type) {
  if (is_float(type)) return type;
  return info(type).block_bytes * 8 <= info(type).block_elems * 5 ? DType::kQ4_0 : DType::kQ8_0;
}

class StoreWriter {
 public:
  StoreWriter(const SynthOptions& options, const SynthShape& shape, const SynthPlan& plan)
      : options_(options),
        shape_(shape),
        plan_(plan),
        header_({.layout = RecordLayout::kSplit,
                 .down = DownEncoding::kRequantized,
                 .dim = shape.dim,
                 .hot_first = options.activity.hot_first && options.knows_firing,
                 .firing_tokens = options.knows_firing ? kSynthFiringTokens : 0}) {}

  Result<SynthSummary> write(const SynthMix& mix);

 private:
  Status add_tensors(const SynthMix& mix);
  Status write_tensor(size_t step);
  Status write_records(const SynthTensor& down, size_t step);
  Status write_firing();
  Status put(size_t step, std::span<const std::byte> bytes);
  void add_factors(int64_t layer);
  Status pad_to(uint64_t offset);

  const SynthOptions& options_;
  const SynthShape& shape_;
  const SynthPlan& plan_;
  StoreHeader header_;
  std::vector<SynthTensor> tensors_;  // header_.tensors() but for the firing rates; records have their Down here
  std::vector<DType> types_;
  SynthTensor up_;  // of the first layer: its shape and type are all layers'
  NeuronRecord record_;
  SynthSummary summary_;
  StoreChecksums checksums_;
  std::unique_ptr<OutputFile> file_;
  uint64_t written_ = 0;
};

Status StoreWriter::add_tensors(const SynthMix& mix) {
  DType gate_type{};
  DType up_type{};
  for (const SynthTensor& tensor : list_tensors(shape_)) {
    uint64_t elems = 1;
    for (const int64_t size : tensor.shape) elems *= static_cast<uint64_t>(size);
    summary_.parameters += elems;
    STOKE_ASSIGN(const DType type, plan_.adjust_type(tensor, choose_type(mix, shape_, tensor)));
    if (tensor.role == SynthRole::kGate) gate_type = type;
    if (tensor.role == SynthRole::kUp) {
      up_ = tensor;
      up_type = type;
      continue;
    }
    if (tensor.role == SynthRole::kDown) {
      record_ = layout_record(RecordLayout::kSplit, DownEncoding::kRequantized, shape_.dim, gate_type, up_type,
                              down_type(gate_type));
      add_factors(tensor.layer);
      header_.add_records(record_, std::max<int64_t>(1, shape_.experts) * shape_.ffn, shape_.experts);
    } else {
      const bool gate = tensor.role == SynthRole::kGate;
      header_.add_matrix(gate ? store_tensor_name(StorePart::kGate, tensor.layer, shape_.experts > 0) : tensor.name,
                         type, tensor.shape);
    }
    tensors_.push_back(tensor);
    types_.push_back(type);
  }
  return ok_status();
}

// Down is random as it is: no row of it needs a factor.
void StoreWriter::add_factors(int64_t layer) {
  const std::vector<int64_t> dims =
      shape_.experts > 0 ? std::vector<int64_t>{shape_.experts, shape_.dim} : std::vector{shape_.dim};
  const std::string name = store_tensor_name(StorePart::kFactors, layer, shape_.experts > 0);
  header_.add_matrix(name, DType::kF32, dims);
  tensors_.push_back({.name = name, .role = SynthRole::kNorm, .layer = layer, .shape = dims});
  types_.push_back(DType::kF32);
}

Status StoreWriter::pad_to(uint64_t offset) {
  const std::string zeros(offset - written_, '\0');
  written_ = offset;
  return file_->append(std::as_bytes(std::span(zeros)));
}

// The next bytes of a tensor: whole units, or its end.
Status StoreWriter::put(size_t step, std::span<const std::byte> bytes) {
  const StoreHeader::Tensor& to = header_.tensors()[step];
  add_checksums(bytes, to.unit_bytes, to.records ? &checksums_.records : &checksums_.matrices);
  STOKE_TRY(file_->append(bytes));
  written_ += bytes.size();
  if (!options_.progress || options_.progress(written_, header_.file_bytes())) return ok_status();
  return Status(Code::kCancelled, "stopped; nothing was written");
}

// Up_i is row i of the GGUF file's matrix; Down_i a random row, without the stream's first dimensions.
Status StoreWriter::write_records(const SynthTensor& down, size_t step) {
  SynthTensor up = up_;
  up.layer = down.layer;
  up.name = fmt::format("blk.{}.ffn_up{}.weight", down.layer, shape_.experts > 0 ? "_exps" : "");
  SynthRows ups(plan_.recipe(up), record_.up_type, shape_.dim, tensor_seed(options_.seed, up.name));
  const SynthRecipe recipe = {.deviation = plan_.recipe(down).deviation, .reads_stream = true};
  SynthRows downs(recipe, record_.down_type, shape_.dim, tensor_seed(options_.seed, down.name));
  const int64_t neurons = std::max<int64_t>(1, shape_.experts) * shape_.ffn;
  std::vector<std::byte> records(static_cast<size_t>(kRecordsAtOnce) * record_.record_bytes);
  for (int64_t first = 0; first < neurons; first += kRecordsAtOnce) {
    const int64_t count = std::min(kRecordsAtOnce, neurons - first);
    for (int64_t i = 0; i < count; ++i) {
      const std::span<std::byte> record =
          std::span(records).subspan(static_cast<size_t>(i) * record_.record_bytes, record_.record_bytes);
      ups.fill(first + i, record.subspan(record_.up_offset, ups.row_bytes()));
      downs.fill(first + i, record.subspan(record_.down_offset, downs.row_bytes()));
    }
    STOKE_TRY(put(step, std::span(records).first(static_cast<size_t>(count) * record_.record_bytes)));
  }
  return ok_status();
}

Status StoreWriter::write_tensor(size_t step) {
  const SynthTensor& tensor = tensors_[step];
  STOKE_TRY(pad_to(header_.tensors()[step].offset));
  if (tensor.role == SynthRole::kDown) return write_records(tensor, step);
  if (tensor.name == store_tensor_name(StorePart::kFactors, tensor.layer, shape_.experts > 0)) {
    const std::vector<float> ones(static_cast<size_t>(std::max<int64_t>(1, shape_.experts) * shape_.dim), 1.0f);
    return put(step, std::as_bytes(std::span(ones)));
  }
  return make_tensor(plan_, tensor, types_[step], options_.seed,
                     [&](std::span<const std::byte> bytes) { return put(step, bytes); });
}

Status StoreWriter::write_firing() {
  FiringStats stats{.tokens = kSynthFiringTokens};
  std::vector<uint16_t> rates;
  for (int64_t layer = 0; layer < shape_.layers; ++layer) {
    stats.layers = {synth_firing(plan_, shape_, layer)};
    const std::vector<uint16_t> of_layer = firing_rates(stats, 0);
    rates.insert(rates.end(), of_layer.begin(), of_layer.end());
  }
  const size_t step = header_.tensors().size() - 1;
  STOKE_TRY(pad_to(header_.tensors()[step].offset));
  return put(step, std::as_bytes(std::span(rates)));
}

Result<SynthSummary> StoreWriter::write(const SynthMix& mix) {
  set_architecture(shape_, mix, &header_.keys());
  set_tokenizer(shape_.vocab, &header_.keys());
  header_.keys().set_string(store_keys::kActivation, shape_.activation);
  STOKE_TRY(add_tensors(mix));
  header_.finish();
  summary_.tensors = tensors_.size();
  summary_.bytes = header_.file_bytes() - header_.bytes().size();
  STOKE_ASSIGN(file_, OutputFile::create(options_.output, header_.file_bytes()));
  STOKE_TRY(file_->append(std::as_bytes(std::span(header_.bytes()))));
  written_ = header_.bytes().size();
  for (size_t step = 0; step < tensors_.size(); ++step) STOKE_TRY(write_tensor(step));
  if (options_.knows_firing) STOKE_TRY(write_firing());
  STOKE_TRY(pad_to(header_.tail_offset()));
  const std::string tail = header_.tail(checksums_);
  STOKE_TRY(file_->append(std::as_bytes(std::span(tail))));
  STOKE_TRY(file_->finish());
  return summary_;
}

}  // namespace

Result<SynthSummary> write_synth_store(const SynthOptions& options, const SynthShape& shape, const SynthMix& mix,
                                       const SynthPlan& plan) {
  if (!plan.fires()) {
    return Status(Code::kInvalid,
                  fmt::format("{}: a neuron store wants a shape with --ffn-act relu or drelu", options.output));
  }
  StoreWriter writer(options, shape, plan);
  return writer.write(mix);
}

}  // namespace stoke::formats
