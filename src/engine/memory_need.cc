#include "engine/memory_need.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/transformer.h"
#include "sys/cgroup.h"

namespace stoke::engine {
namespace {

constexpr int64_t kLeastContext = 256;
// Beside what we hold, the kernel charges page tables, queues and the program's own pages to us.
constexpr int64_t kKernelBytes = int64_t{24} << 20;
// Read buffers of the loader's threads while loading (resident_source.h: four, of a chunk of 4 MiB each).
constexpr int64_t kLoaderBytes = 4 * (int64_t{4} << 20);

int64_t total(const ModelSize& model, const Sizes& sizes) { return memory_need(model, sizes).total; }

// The longest context, in whole pages, whose need stays within the budget; 0 when none does.
int64_t longest_context(const ModelSize& model, Sizes sizes, int64_t budget) {
  int64_t fits = 0;
  int64_t high = sizes.context / kv::kPageTokens;
  for (int64_t low = 1; low <= high;) {
    const int64_t middle = (low + high) / 2;
    sizes.context = middle * kv::kPageTokens;
    if (total(model, sizes) <= budget) {
      fits = sizes.context;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return fits;
}

// What would make it fit, as the end of a sentence.
std::string remedy(const ModelSize& model, const Sizes& sizes, int64_t budget) {
  Sizes small = sizes;
  small.batch = std::min(sizes.batch, kLeastBatch);
  if (const int64_t context = longest_context(model, small, budget); context >= kLeastContext) {
    return fmt::format("what would fit: a smaller context, -c {} -b {}", context, small.batch);
  }
  small.kv_type = kv::KvType::kQ8_0;
  if (const int64_t context = longest_context(model, small, budget); context >= kLeastContext) {
    return fmt::format(
        "what would fit: a KV cache of lower precision and a smaller context, --kv-type q8_0 -c {} -b {}", context,
        small.batch);
  }
  const int64_t rest = total(model, small) - model.weights_bytes;
  const double share = static_cast<double>(budget - rest) / static_cast<double>(model.weights_bytes);
  if (share < 0.1) return "what would fit: a smaller model";
  return fmt::format("what would fit: the model in a smaller quantisation, weights of at most {} ({:.0f} % of these)",
                     bytes_text(budget - rest), share * 100);
}

}  // namespace

std::string bytes_text(int64_t bytes) {
  if (bytes < 1 << 20) return fmt::format("{} bytes", bytes);  // a suffix was forgotten, perhaps
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib >= 1024 ? fmt::format("{:.2f} GiB", mib / 1024) : fmt::format("{:.1f} MiB", mib);
}

Sizes few_tokens(const Sizes& sizes) {
  Sizes few = sizes;
  few.batch = std::min(sizes.batch, std::max<int64_t>(kLeastBatch, sizes.sequences));
  return few;
}

kv::PoolOptions pool_options(const model::Config& config, const Sizes& sizes) {
  const int64_t pages = (sizes.context + kv::kPageTokens - 1) / kv::kPageTokens + 1;
  return {.layers = config.layers,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .type = sizes.kv_type,
          .max_context = sizes.context,
          .pages = pages * sizes.sequences};
}

MemoryReport memory_need(const ModelSize& model, const Sizes& sizes) {
  const model::Config& config = *model.config;
  const kv::PoolOptions pool = pool_options(config, sizes);
  const auto logits_bytes = (sizes.sequences + kScoreRows) * config.vocab * static_cast<int64_t>(sizeof(float));
  MemoryReport report;
  report.weights = model.weights_bytes;
  report.kv = static_cast<int64_t>(kv::KvPool::page_bytes(pool)) * pool.pages;
  report.activations = static_cast<int64_t>(model::Transformer::bytes(
                           config, *model.threads, {.max_batch = sizes.batch, .max_context = sizes.context})) +
                       logits_bytes + kLoaderBytes;
  if (model.ffn_bytes) {
    report.activations +=
        model.ffn_bytes(sizes.batch) - static_cast<int64_t>(model::FullFfn::bytes(config, sizes.batch));
  }
  report.text = model.text_bytes;
  report.process = model.process_bytes;
  report.total = report.weights + report.kv + report.activations + report.text + report.process;
  return report;
}

MemoryReport memory_need_streaming(const ModelSize& model, const Sizes& sizes, int64_t held) {
  MemoryReport report = memory_need(model, sizes);
  report.weights = 0;
  report.activations -= kLoaderBytes;
  report.process = held - report.text;
  report.total = report.kv + report.activations + held;
  return report;
}

Result<Sizes> fit_streaming(const std::string& path, const ModelSize& model, const Sizes& wanted, bool batch_is_free,
                            const StreamingNeed& need, const Budget& budget) {
  const auto total_of = [&](const Sizes& sizes) {
    return memory_need_streaming(model, sizes, need.held).total + need.least_weights;
  };
  const auto activations = [&](const Sizes& sizes) { return memory_need_streaming(model, sizes, 0).activations; };
  Sizes sizes = wanted;
  const int64_t floor = std::max<int64_t>(kLeastBatch, wanted.sequences);
  const auto too_large = [&] { return activations(sizes) > budget.bytes / 8 || total_of(sizes) > budget.bytes; };
  while (batch_is_free && sizes.batch > floor && too_large()) sizes.batch = std::max(floor, sizes.batch / 2);
  if (total_of(sizes) <= budget.bytes) return sizes;
  Sizes least = sizes;
  least.kv_type = kv::KvType::kQ8_0;
  least.context = std::min(least.context, kLeastContext);
  least.batch = std::min(least.batch, kLeastBatch);
  const MemoryReport report = memory_need_streaming(model, sizes, need.held);
  return Status(
      Code::kNoMemory,
      fmt::format("{}: streamed from disk it needs at least {} for a context of {} (KV {}, activations {}, process and "
                  "text {}, weights {}); the limit is {} ({}); lower: -c {} -b {} --kv-type q8_0 needs {}",
                  path, bytes_text(total_of(sizes)), sizes.context, bytes_text(report.kv),
                  bytes_text(report.activations), bytes_text(need.held), bytes_text(need.least_weights),
                  bytes_text(budget.bytes), budget.source, least.context, least.batch, bytes_text(total_of(least))));
}

Budget find_budget(int64_t wanted, int64_t held) {
  const sys::MemoryLimit limit = sys::memory_limit();
  const int64_t margin =
      wanted > 0 ? kKernelBytes : std::max(int64_t{64} << 20, static_cast<int64_t>(limit.bytes / 50));
  const int64_t free = std::max<int64_t>(0, static_cast<int64_t>(limit.available) + held - margin);
  if (wanted > 0 && wanted <= free) return {wanted, "--memory"};
  return {free, fmt::format("what is free here less {}: {}", bytes_text(margin), limit.how)};
}

Result<Sizes> fit_sizes(const std::string& path, const ModelSize& model, const Sizes& wanted, bool batch_is_free,
                        const Budget& budget) {
  Sizes sizes = wanted;
  while (batch_is_free && sizes.batch > kLeastBatch && total(model, sizes) > budget.bytes) sizes.batch /= 2;
  if (total(model, sizes) <= budget.bytes) return sizes;
  const MemoryReport need = memory_need(model, sizes);
  return Status(
      Code::kNoMemory,
      fmt::format("{}: needs {} (weights {}, KV {} for a context of {}, activations {}, text {}), at the least "
                  "{} with a KV cache of q8_0; the limit is {} ({}); {}",
                  path, bytes_text(need.total), bytes_text(need.weights), bytes_text(need.kv), sizes.context,
                  bytes_text(need.activations), bytes_text(need.text), bytes_text(least_memory(model, sizes)),
                  bytes_text(budget.bytes), budget.source, remedy(model, sizes, budget.bytes)));
}

int64_t least_memory(const ModelSize& model, const Sizes& sizes) {
  Sizes least = sizes;
  least.kv_type = kv::KvType::kQ8_0;
  least.batch = std::min(sizes.batch, kLeastBatch);
  return std::min(total(model, least), total(model, sizes));
}

std::string fit_advice(const ModelSize& model, const Sizes& sizes, const Budget& budget) {
  const int64_t need = total(model, sizes);
  if (need <= budget.bytes) {
    return fmt::format("fits: {} of {}", bytes_text(need), bytes_text(budget.bytes));
  }
  Sizes small = sizes;
  small.batch = std::min(sizes.batch, kLeastBatch);
  if (total(model, small) <= budget.bytes) return "fits with smaller batches, which are chosen by themselves";
  return fmt::format("does not fit: {} of {}; {}", bytes_text(need), bytes_text(budget.bytes),
                     remedy(model, sizes, budget.bytes));
}

}  // namespace stoke::engine
