#include "engine/memory_need.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

Sizes with_context(Sizes sizes, int64_t context) {
  sizes.context = context;
  sizes.batch = std::max<int64_t>(std::min(sizes.batch, context), sizes.sequences);
  return sizes;
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

Result<Sizes> fit_streaming(const std::string& path, const StreamingNeed& need, const SizeRange& range,
                            const Budget& budget) {
  const auto report = [&](const Sizes& sizes) { return memory_need_streaming(need.streamed, sizes, need.held); };
  const auto fits = [&](const Sizes& sizes) { return report(sizes).total + need.least_weights <= budget.bytes; };
  Sizes sizes = range.wanted;
  const auto too_large = [&] { return report(sizes).activations > budget.bytes / 8 || !fits(sizes); };
  while (sizes.batch > range.least.batch && too_large()) sizes.batch = std::max(range.least.batch, sizes.batch / 2);
  while (!fits(sizes) && sizes.context > range.least.context) {
    sizes = with_context(sizes, std::max(range.least.context, sizes.context / 2));
  }
  if (fits(sizes)) return sizes;
  Sizes lower = range.least;
  lower.kv_type = kv::KvType::kQ8_0;
  lower.context = std::min(lower.context, kLeastContext);
  lower.batch = std::min(lower.batch, kLeastBatch);
  const MemoryReport least = least_memory(need, range.least);
  const int64_t lowest = least_memory(need, lower).total;
  const std::string remedy = lowest < least.total ? fmt::format("lower: -c {} -b {} --kv-type q8_0 needs {}",
                                                                lower.context, lower.batch, bytes_text(lowest))
                                                  : "nothing lowers that: take a smaller model or more memory";
  return Status(
      Code::kNoMemory,
      fmt::format("{}: streamed from disk it needs at least {} for a context of {} (KV {}, activations {}, process and "
                  "text {}, weights {}); the limit is {} ({}); {}",
                  path, bytes_text(least.total), range.least.context, bytes_text(least.kv),
                  bytes_text(least.activations), bytes_text(least.process + least.text), bytes_text(least.weights),
                  bytes_text(budget.bytes), budget.source, remedy));
}

MemoryReport least_memory(const StreamingNeed& need, const Sizes& sizes) {
  MemoryReport streamed = memory_need_streaming(need.streamed, sizes, need.held);
  streamed.weights = need.least_weights;
  streamed.total += need.least_weights;
  MemoryReport least = memory_need(need.whole, sizes);
  if (streamed.total < least.total) least = std::move(streamed);
  least.process += kHeldDrift;
  least.total += kHeldDrift;
  return least;
}

Budget find_budget(int64_t wanted, int64_t held) {
  const sys::MemoryLimit limit = sys::memory_limit();
  const int64_t margin =
      wanted > 0 ? kKernelBytes : std::max(int64_t{64} << 20, static_cast<int64_t>(limit.bytes / 50));
  const int64_t free = std::max<int64_t>(0, static_cast<int64_t>(limit.available) + held - margin);
  if (wanted > 0 && wanted <= free) return {wanted, "--memory"};
  return {free, fmt::format("what is free here less {}: {}", bytes_text(margin), limit.how)};
}

std::optional<Sizes> fit_sizes(const ModelSize& model, const SizeRange& range, const Budget& budget) {
  Sizes sizes = range.wanted;
  while (sizes.batch > range.least.batch && total(model, sizes) > budget.bytes) {
    sizes.batch = std::max(range.least.batch, sizes.batch / 2);
  }
  return total(model, sizes) <= budget.bytes ? std::optional(sizes) : std::nullopt;
}

std::string fit_advice(const ModelSize& model, const SizeRange& range, const Budget& budget) {
  const int64_t need = total(model, range.wanted);
  if (need <= budget.bytes) return fmt::format("fits: it is held whole in the {} there are", bytes_text(budget.bytes));
  if (fit_sizes(model, range, budget)) return "fits with smaller batches, which are chosen by themselves";
  return fmt::format("does not fit: {} of {}; {}", bytes_text(need + kHeldDrift), bytes_text(budget.bytes),
                     remedy(model, range.wanted, budget.bytes));
}

}  // namespace stoke::engine
