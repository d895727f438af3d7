#include "engine/record_firing.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/engine.h"
#include "engine/gate_mark.h"

namespace stoke::engine {
namespace {

Status check_fires(const Prepared& prepared) {
  const model::Config& config = prepared.loaded.config;
  if (!config.activation.fires()) {
    return Status(
        Code::kUnsupported,
        fmt::format("{}: the FFN's activation is {}: only neurons of relu, drelu and fatrelu are silent unless they "
                    "fire (--ffn-act NAME, if the file states no activation)",
                    prepared.file.path, model::activation_name(config.activation)));
  }
  for (const RecordTable& table : prepared.loaded.tables) {
    if (table.record.layout == RecordLayout::kSplit) continue;
    return Status(Code::kUnsupported, fmt::format("{}: its gates lie in the records: record the model that it was made "
                                                  "from, or a store of --layout split",
                                                  prepared.file.path));
  }
  return ok_status();
}

// One window, on a sequence of its own.
Status run_window(Engine& engine, std::span<const int32_t> tokens, std::vector<int64_t>* rows,
                  const CancelFlag* cancel) {
  const kv::SeqId sequence = engine.pool().create_sequence();
  Status status;
  for (size_t begin = 0; status.ok() && begin < tokens.size(); begin += static_cast<size_t>(engine.sizes().batch)) {
    const auto part = tokens.subspan(begin, std::min(static_cast<size_t>(engine.sizes().batch), tokens.size() - begin));
    rows->resize(part.size());
    std::iota(rows->begin(), rows->end(), 0);  // all rows are outputs: the last layer is for these alone
    model::SequenceRun run{.seq = sequence, .first = 0, .count = std::ssize(part)};
    status = engine.append(part, std::span(&run, 1), *rows, cancel);
  }
  engine.pool().release(sequence);
  return status;
}

}  // namespace

Result<formats::FiringStats> record_firing(const RecordOptions& options) {
  formats::FiringStats stats;
  {
    STOKE_ASSIGN(const Prepared prepared, prepare(options.model, options.how));
    STOKE_TRY(check_fires(prepared));
    STOKE_ASSIGN(const GateMark mark, mark_gates(prepared.file, prepared.loaded));
    stats.model = prepared.info.name;
    stats.fingerprint = mark.fingerprint;
    for (const formats::FiringShape& layer : mark.layers) {
      const auto experts = static_cast<size_t>(layer.experts);
      stats.layers.push_back({.tokens = std::vector<int64_t>(experts),
                              .fired = std::vector<uint32_t>(experts * static_cast<size_t>(layer.neurons))});
    }
  }
  STOKE_ASSIGN(const std::unique_ptr<Engine> engine, Engine::open(options.model, options.how, stats.layers));
  STOKE_ASSIGN(std::vector<int32_t> tokens, engine->tokenizer().encode(options.text));
  if (options.tokens_max > 0 && std::ssize(tokens) > options.tokens_max) {
    tokens.resize(static_cast<size_t>(options.tokens_max));
  }
  if (tokens.empty()) return Status(Code::kInvalid, "the text has no tokens: give more of it");
  const auto window = static_cast<size_t>(engine->sizes().context);
  std::vector<int64_t> rows;
  for (size_t begin = 0; begin < tokens.size(); begin += window) {
    const auto part = std::span(tokens).subspan(begin, std::min(window, tokens.size() - begin));
    if (engine->tokenizer().adds_bos()) part[0] = engine->tokenizer().bos();
    STOKE_TRY(run_window(*engine, part, &rows, options.how.cancel));
    stats.tokens += std::ssize(part);
    if (options.progress) options.progress(stats.tokens, std::ssize(tokens));
  }
  return stats;
}

}  // namespace stoke::engine
