#include "formats/synth.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/synth_blocks.h"
#include "formats/synth_header.h"
#include "formats/synth_rows.h"
#include "formats/synth_stats.h"

namespace stoke::formats {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;  // fits the second-level cache: made there, written from there

struct Progress {
  const std::function<bool(uint64_t, uint64_t)>& report;
  uint64_t total = 0;
  uint64_t done = 0;

  Status advance(uint64_t bytes) {
    done += bytes;
    if (!report || report(done, total)) return ok_status();
    return Status(Code::kCancelled, "stopped; nothing was written");
  }
};

// A seed of a tensor's own, so that adding a layer changes no other tensor (FNV-1a).
uint64_t tensor_seed(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

Status write_vector(float value, uint64_t bytes, GgufWriter* writer) {
  std::vector<float> values(bytes / sizeof(float), value);
  return writer->append(std::as_bytes(std::span(values)));
}

Status write_random(const SynthTensor& tensor, DType type, uint64_t seed, uint64_t bytes, GgufWriter* writer,
                    Progress* progress) {
  double deviation = 1 / std::sqrt(static_cast<double>(tensor.shape.back()));
  BlockSource source(type, deviation, tensor_seed(seed, tensor.name));
  size_t block = info(type).block_bytes;
  std::vector<std::byte> chunk(kChunkBytes / block * block);
  for (uint64_t done = 0; done < bytes;) {
    std::span<std::byte> part = std::span(chunk).first(std::min<uint64_t>(chunk.size(), bytes - done));
    source.fill(part);
    STOKE_TRY(writer->append(part));
    STOKE_TRY(progress->advance(part.size()));
    done += part.size();
  }
  return ok_status();
}

Status write_planned(const SynthPlan& plan, const SynthTensor& tensor, DType type, uint64_t seed, GgufWriter* writer,
                     Progress* progress) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  SynthRows source(plan.recipe(tensor), type, tensor.shape.back(), tensor_seed(seed, tensor.name));
  const auto at_once = static_cast<int64_t>(std::max<size_t>(1, kChunkBytes / source.row_bytes()));
  std::vector<std::byte> chunk(static_cast<size_t>(at_once) * source.row_bytes());
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    for (int64_t i = 0; i < count; ++i) {
      source.fill(row + i, std::span(chunk).subspan(static_cast<size_t>(i) * source.row_bytes(), source.row_bytes()));
    }
    const std::span<std::byte> part = std::span(chunk).first(static_cast<size_t>(count) * source.row_bytes());
    STOKE_TRY(writer->append(part));
    STOKE_TRY(progress->advance(part.size()));
  }
  return ok_status();
}

Status write_tensor(const SynthPlan& plan, const SynthTensor& tensor, DType type, uint64_t seed, uint64_t bytes,
                    GgufWriter* writer, Progress* progress) {
  if (tensor.role == SynthRole::kNorm) return write_vector(plan.recipe(tensor).constants[0], bytes, writer);
  return plan.active() ? write_planned(plan, tensor, type, seed, writer, progress)
                       : write_random(tensor, type, seed, bytes, writer, progress);
}

}  // namespace

Result<SynthSummary> write_synth(const SynthOptions& options) {
  SynthShape shape = options.shape;
  STOKE_TRY(complete_shape(&shape));
  STOKE_ASSIGN(SynthMix mix, find_mix(options.type));
  STOKE_ASSIGN(const SynthPlan plan, SynthPlan::make(shape, options.activity, options.seed));
  GgufHeader header;
  set_architecture(shape, mix, &header);
  set_tokenizer(shape.vocab, &header);
  SynthSummary summary;
  std::vector<SynthTensor> tensors = list_tensors(shape);
  std::vector<DType> types;
  for (const SynthTensor& tensor : tensors) {
    STOKE_ASSIGN(const DType type, plan.adjust_type(tensor, choose_type(mix, shape, tensor)));
    types.push_back(type);
    header.add_tensor(tensor.name, types.back(), tensor.shape);
    uint64_t elems = 1;
    for (int64_t dim : tensor.shape) elems *= static_cast<uint64_t>(dim);
    summary.parameters += elems;
  }
  summary.tensors = tensors.size();
  summary.bytes = header.data_bytes();
  std::vector<uint64_t> bytes = header.tensor_bytes();
  Progress progress{options.progress, summary.bytes};
  STOKE_ASSIGN(std::unique_ptr<GgufWriter> writer, GgufWriter::create(options.output, std::move(header)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    STOKE_TRY(write_tensor(plan, tensors[i], types[i], options.seed, bytes[i], writer.get(), &progress));
  }
  if (!options.stats_output.empty()) STOKE_TRY(write_firing_stats(plan, shape, options.stats_output));
  STOKE_TRY(writer->finish());
  return summary;
}

}  // namespace stoke::formats
