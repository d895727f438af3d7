#include "formats/synth.h"

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/synth_header.h"
#include "formats/synth_stats.h"
#include "formats/synth_store.h"
#include "formats/synth_tensor.h"

namespace stoke::formats {
namespace {

Result<SynthSummary> write_gguf(const SynthOptions& options, const SynthShape& shape, const SynthMix& mix,
                                const SynthPlan& plan) {
  GgufHeader header;
  set_architecture(shape, mix, &header);
  set_tokenizer(shape.vocab, &header);
  SynthSummary summary;
  std::vector<SynthTensor> tensors = list_tensors(shape);
  std::vector<DType> types;
  for (const SynthTensor& tensor : tensors) {
    STOKE_ASSIGN(const DType type, plan.adjust_type(tensor, choose_type(mix, shape, tensor)));
    types.push_back(type);
    header.add_tensor(tensor.name, type, tensor.shape);
    uint64_t elems = 1;
    for (int64_t dim : tensor.shape) elems *= static_cast<uint64_t>(dim);
    summary.parameters += elems;
  }
  summary.tensors = tensors.size();
  summary.bytes = header.data_bytes();
  STOKE_ASSIGN(std::unique_ptr<GgufWriter> writer, GgufWriter::create(options.output, std::move(header)));
  uint64_t done = 0;
  const SynthSink sink = [&](std::span<const std::byte> bytes) -> Status {
    STOKE_TRY(writer->append(bytes));
    done += bytes.size();
    if (!options.progress || options.progress(done, summary.bytes)) return ok_status();
    return Status(Code::kCancelled, "stopped; nothing was written");
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    STOKE_TRY(make_tensor(plan, tensors[i], types[i], options.seed, sink));
  }
  STOKE_TRY(writer->finish());
  return summary;
}

}  // namespace

Result<SynthSummary> write_synth(const SynthOptions& options) {
  SynthShape shape = options.shape;
  STOKE_TRY(complete_shape(&shape));
  STOKE_ASSIGN(const SynthMix mix, find_mix(options.type));
  STOKE_ASSIGN(const SynthPlan plan, SynthPlan::make(shape, options.activity, options.seed));
  if (!options.stats_output.empty() && !plan.fires()) {
    return Status(Code::kInvalid, "--stats-out " + options.stats_output +
                                      ": only shapes with --ffn-act relu or drelu have neurons that fire");
  }
  const bool store = options.output.ends_with(".stoke");
  auto written = store ? write_synth_store(options, shape, mix, plan) : write_gguf(options, shape, mix, plan);
  if (!written.ok() || options.stats_output.empty()) return written;
  STOKE_TRY(write_synth_firing(plan, shape, options.output, options.stats_output));
  return written;
}

}  // namespace stoke::formats
