// One model, ready to run, for tests: file, plan, weights in memory, a pool and a transformer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model_loader.h"
#include "formats/model_file.h"
#include "kernels/kernels.h"
#include "kv/kv_pool.h"
#include "model/transformer.h"
#include "sys/thread_pool.h"
#include "tests/model/memory_source.h"

namespace stoke::test {

struct HarnessOptions {
  std::string ffn_act;
  int threads = 1;
  int64_t max_batch = 64;
  int64_t context = 256;
  int64_t rows_at_once = 0;
  const char* isa = nullptr;  // null: the best
};

class Harness {
 public:
  static Result<std::unique_ptr<Harness>> open(const std::string& path, const HarnessOptions& options) {
    auto out = std::make_unique<Harness>();
    STOKE_ASSIGN(out->file, formats::open_model_file(path));
    STOKE_ASSIGN(out->plan, engine::plan_model(out->file, {.ffn_act = options.ffn_act}));
    STOKE_ASSIGN(out->source, MemorySource::load(out->file, out->plan.plan, options.rows_at_once));
    const model::Config& c = out->plan.config;
    STOKE_ASSIGN(out->pool, kv::KvPool::create({.layers = c.layers,
                                                .kv_heads = c.kv_heads,
                                                .head_dim = c.head_dim,
                                                .max_context = options.context,
                                                .pages = 8 * (options.context / kv::kPageTokens + 1)}));
    out->threads = std::make_unique<sys::ThreadPool>(options.threads);
    const kernels::Kernels* kernels = options.isa == nullptr ? &kernels::best() : kernels::find(options.isa);
    CHECK(kernels != nullptr);
    out->transformer = std::make_unique<model::Transformer>(
        model::Transformer::Parts{c, out->plan.weights, *out->source, *out->pool, *kernels, *out->threads},
        model::TransformerOptions{.max_batch = options.max_batch, .max_context = options.context});
    return out;
  }

  // Runs `tokens` as the next positions of `seq`, `chunk` at a time; returns the logits of each: (tokens, vocab).
  std::vector<float> feed(kv::SeqId seq, const std::vector<int32_t>& tokens, int64_t chunk) {
    std::vector<float> all;
    for (size_t at = 0; at < tokens.size(); at += static_cast<size_t>(chunk)) {
      const size_t n = std::min(tokens.size() - at, static_cast<size_t>(chunk));
      std::vector<std::pair<kv::SeqId, std::vector<int32_t>>> part = {
          {seq, {tokens.begin() + static_cast<int64_t>(at), tokens.begin() + static_cast<int64_t>(at + n)}}};
      const std::vector<float> logits = feed_together(part);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

  // One batch of several sequences' next tokens; logits of every row.
  std::vector<float> feed_together(const std::vector<std::pair<kv::SeqId, std::vector<int32_t>>>& parts) {
    std::vector<int32_t> tokens;
    std::vector<model::SequenceRun> runs;
    std::vector<int64_t> outputs;
    for (const auto& [seq, part] : parts) {
      const auto n = static_cast<int64_t>(part.size());
      CHECK(pool->reserve(seq, n).ok());
      runs.push_back({seq, static_cast<int64_t>(tokens.size()), n, pool->length(seq)});
      tokens.insert(tokens.end(), part.begin(), part.end());
    }
    for (size_t i = 0; i < tokens.size(); ++i) outputs.push_back(static_cast<int64_t>(i));
    const Status done = transformer->forward({tokens, runs, outputs});
    CHECK(done.ok());
    for (const auto& [seq, part] : parts) pool->commit(seq, static_cast<int64_t>(part.size()));
    std::vector<float> logits(tokens.size() * static_cast<size_t>(plan.config.vocab));
    CHECK(transformer->logits(0, static_cast<int64_t>(tokens.size()), logits.data()).ok());
    CHECK(source->leases() == 0);
    return logits;
  }

  // The most likely token after the last row.
  int32_t best_last(const std::vector<float>& logits) const {
    const auto vocab = plan.config.vocab;
    const auto last = logits.end() - vocab;
    return static_cast<int32_t>(std::max_element(last, logits.end()) - last);
  }

  formats::ModelFile file;
  engine::ModelPlan plan;
  std::unique_ptr<MemorySource> source;
  std::unique_ptr<kv::KvPool> pool;
  std::unique_ptr<sys::ThreadPool> threads;
  std::unique_ptr<model::Transformer> transformer;
};

}  // namespace stoke::test
