// What fires in a model: counts gates, experts and how often they stay, over real forward passes; prints JSON.
//
// usage: bench_firing MODEL [TOKENS] [random|greedy] [SEED]. The model is held in memory: cut large ones (stoke synth
// --layers 2). `random` feeds tokens drawn evenly, `greedy` the model's own likeliest next token.
#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "tests/model/firing_counter.h"

int main(int argc, char** argv) {
  if (argc < 2) return fmt::print(stderr, "usage: {} MODEL [TOKENS] [random|greedy] [SEED]\n", argv[0]), 2;
  const int tokens = argc > 2 ? std::atoi(argv[2]) : 256;
  const bool greedy = argc > 3 && std::string(argv[3]) == "greedy";
  uint64_t state = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1;
  auto counter = stoke::test::FiringCounter::open(argv[1], tokens);
  if (!counter.ok()) return fmt::print(stderr, "{}\n", counter.status().message()), 1;
  const auto vocab = static_cast<uint64_t>((*counter)->config().vocab);
  std::set<int32_t> different;
  int32_t next = 0;
  for (int i = 0; i < tokens; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const int32_t token = greedy && i > 0 ? next : static_cast<int32_t>((state >> 33) % vocab);
    different.insert(token);
    next = (*counter)->feed(token);
  }
  const stoke::test::FiringShares s = stoke::test::shares_of((*counter)->layers());
  fmt::print(
      "{{\"tokens\": {}, \"different_tokens\": {}, \"gate_share\": {:.4f}, \"layers_low_high\": [{:.4f}, {:.4f}], "
      "\"up_share\": {:.4f}, \"both_share\": {:.4f}, \"fired_before\": {:.3f},\n"
      " \"firings_of_top_10_25_26_50\": [{:.3f}, {:.3f}, {:.3f}, {:.3f}], \"experts_used_before\": {:.3f}, "
      "\"uses_of_top_10_25_50_experts\": [{:.3f}, {:.3f}, {:.3f}]}}\n",
      tokens, different.size(), s.gate, s.gate_low, s.gate_high, s.up, s.both, s.again, s.top[0], s.top[1], s.top[2],
      s.top[3], s.expert_again, s.expert_top[0], s.expert_top[1], s.expert_top[2]);
  return 0;
}
