#include "cli/output.h"

#include <fmt/format.h>

#include <cstdio>

#include "cli/verbs.h"

namespace stoke::cli {
namespace {

Json share(double value) { return value < 0 ? Json(nullptr) : Json(value); }

}  // namespace

Json stats_json(const Stats& s) {
  return Json{{"model", s.model},
              {"threads", s.threads},
              {"isa", s.isa},
              {"load_s", s.load_s},
              {"time_to_first_token_s", s.time_to_first_token_s},
              {"prefill_tokens_per_s", s.prefill_tokens_per_s},
              {"decode_tokens_per_s", s.decode_tokens_per_s},
              {"token_s_p50", s.token_s_p50},
              {"token_s_p90", s.token_s_p90},
              {"token_s_p99", s.token_s_p99},
              {"token_s_mean", s.token_s_mean},
              {"budget_bytes", s.budget_bytes},
              {"peak_rss_bytes", s.peak_rss_bytes},
              {"page_cache_bytes", s.page_cache_bytes},
              {"bytes_read", s.bytes_read},
              {"bytes_read_per_token", s.bytes_read_per_token},
              {"reads", s.reads},
              {"reads_per_token", s.reads_per_token},
              {"cache_hit_rate", share(s.cache_hit_rate)},
              {"io_stall_share", s.io_stall_share},
              {"active_neuron_share", share(s.active_neuron_share)},
              {"predictor_recall", share(s.predictor_recall)},
              {"ablation", s.ablation.empty() ? Json(nullptr) : Json(s.ablation)},
              {"cache_slots", s.cache_slots},
              {"budget_source", s.budget_source},
              {"reader", s.reader.empty() ? Json(nullptr) : Json(s.reader)},
              {"read_bytes_per_s", s.read_bytes_per_s},
              {"predicted_decode_tokens_per_s", s.forecast_tokens_per_s > 0 ? Json(s.forecast_tokens_per_s) : Json()}};
}

std::string stats_line(const Stats& s) {
  std::string line = fmt::format("{}: load {:.2f} s", s.model, s.load_s);
  if (s.time_to_first_token_s > 0) line += fmt::format(", first token {:.3f} s", s.time_to_first_token_s);
  line += fmt::format(", prefill {:.1f} tok/s ({})", s.prefill_tokens_per_s, counted(s.prompt_tokens, "token"));
  if (s.generated_tokens > 0) {
    line += fmt::format(", decode {:.1f} tok/s ({}, p50 {:.2f} ms, p99 {:.2f} ms)", s.decode_tokens_per_s,
                        counted(s.generated_tokens, "token"), s.token_s_p50 * 1e3, s.token_s_p99 * 1e3);
  }
  line += fmt::format(", {} threads, {}, peak {} of {} ({})", s.threads, s.isa, format_size(s.peak_rss_bytes),
                      format_size(s.budget_bytes), s.budget_source);
  if (s.reader.empty()) return line;  // nothing is streamed
  line +=
      fmt::format(", {} read a token at {:.0f} MB/s, {} reads in all ({}), {:.0f} % of the time waiting for the disk",
                  format_size(static_cast<int64_t>(s.bytes_read_per_token)), s.read_bytes_per_s * 1e-6, s.reads,
                  s.reader, s.io_stall_share * 100);
  if (s.cache_hit_rate >= 0) line += fmt::format(", {:.1f} % of look-ups in memory", s.cache_hit_rate * 100);
  if (s.active_neuron_share >= 0) line += fmt::format(", {:.1f} % of neurons fired", s.active_neuron_share * 100);
  return line;
}

std::string memory_sum(const MemoryReport& m) {
  return fmt::format("weights {} + kv {} + activations {} + text {} + process {}", format_size(m.weights),
                     format_size(m.kv), format_size(m.activations), format_size(m.text), format_size(m.process));
}

void print_json(const Json& object) {
  const std::string text = object.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

}  // namespace stoke::cli
