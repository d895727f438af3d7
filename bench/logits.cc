// How far two models' logits are apart: mean and largest KL divergence of B from A, and how often both like the same
// token best. A and B are files as `llama-perplexity --save-all-logits` writes them; B may also be a model, which stoke
// then runs over the tokens in A. Prints JSON. bench/logits.py calls it.
// usage: bench_logits A B [instruction set]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "stoke/stoke.h"

namespace stoke {
namespace {

// Log-probabilities after each scored token: those of a window's second half but the last, as llama-perplexity has it.
struct LogProbs {
  int32_t window = 0, vocabulary = 0, windows = 0;
  std::vector<int32_t> tokens;           // (windows, window)
  std::vector<std::vector<float>> rows;  // (windows * scored(), vocabulary)
  int64_t scored() const { return window - 1 - window / 2; }
};

Status short_file(const std::string& path) {
  return Status(Code::kInvalid, path + ": not a whole file of llama-perplexity --save-all-logits");
}

// A row: scale and least log-probability as FP32, then 16 bits a token, padded to an even number.
Result<LogProbs> read_logits(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  auto take = [&](void* to, size_t bytes) {
    return static_cast<bool>(file.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes)));
  };
  LogProbs all;
  char magic[8];
  if (!take(magic, 8) || std::memcmp(magic, "_logits_", 8) != 0) return short_file(path);
  if (!take(&all.window, 4) || !take(&all.vocabulary, 4) || !take(&all.windows, 4)) return short_file(path);
  if (all.window < 4 || all.vocabulary < 1 || all.windows < 1) return short_file(path);
  all.tokens.resize(static_cast<size_t>(all.windows) * static_cast<size_t>(all.window));
  if (!take(all.tokens.data(), all.tokens.size() * 4)) return short_file(path);
  const auto vocabulary = static_cast<size_t>(all.vocabulary);
  std::vector<uint16_t> packed((vocabulary + 1) / 2 * 2 + 4);
  for (int64_t i = 0; i < all.windows * all.scored(); ++i) {
    if (!take(packed.data(), packed.size() * 2)) return short_file(path);
    float head[2];
    std::memcpy(head, packed.data(), sizeof head);
    auto& row = all.rows.emplace_back(vocabulary);
    for (size_t v = 0; v < vocabulary; ++v) row[v] = head[1] + head[0] * static_cast<float>(packed[v + 4]);
  }
  return all;
}

void to_log_probs(std::span<const float> logits, std::vector<float>* out) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float l : logits) sum += std::exp(double{l} - top);
  const auto log_sum = static_cast<float>(std::log(sum));
  out->clear();
  for (const float l : logits) out->push_back(l - top - log_sum);
}

// stoke's, over the tokens of `like`.
Result<LogProbs> run_model(const std::string& path, const LogProbs& like, const std::string& isa) {
  ModelOptions options;
  options.context = like.window;
  options.isa = isa;
  auto model = Model::open(path, options);
  if (!model.ok()) return model.status();
  auto session = (*model)->new_session();
  if (!session.ok()) return session.status();
  LogProbs all = like;
  all.rows.clear();
  all.vocabulary = static_cast<int32_t>((*model)->info().vocabulary);
  for (int64_t w = 0; w < like.windows; ++w) {
    const auto begin = like.tokens.begin() + w * like.window;
    std::vector<int32_t> window(begin, begin + like.window - 1);
    if ((*model)->tokenizer().adds_bos()) window[0] = (*model)->tokenizer().bos();
    (*session)->truncate(0);
    const Status status = (*session)->score(window, like.window / 2, [&](int64_t, std::span<const float> logits) {
      to_log_probs(logits, &all.rows.emplace_back());
    });
    if (!status.ok()) return status;
  }
  return all;
}

struct Distance {
  double kl_mean = 0, kl_max = 0, same_top = 0;
};

Distance distance(const LogProbs& a, const LogProbs& b) {
  Distance d;
  for (size_t i = 0; i < a.rows.size(); ++i) {
    const auto &p = a.rows[i], &q = b.rows[i];
    double kl = 0;
    for (size_t v = 0; v < p.size(); ++v) kl += std::exp(double{p[v]}) * (double{p[v]} - q[v]);
    d.kl_mean += kl / static_cast<double>(a.rows.size());
    d.kl_max = std::max(d.kl_max, kl);
    const bool same =
        std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
    d.same_top += (same ? 1.0 : 0.0) / static_cast<double>(a.rows.size());
  }
  return d;
}

int main_of(const std::vector<std::string>& args) {
  auto fail = [](const std::string& why) {
    fmt::print(stderr, "bench_logits: {}\n", why);
    return 1;
  };
  if (args.size() < 2) return fail("usage: bench_logits A B [instruction set]");
  auto a = read_logits(args[0]);
  if (!a.ok()) return fail(a.status().message());
  auto b = args[1].ends_with(".gguf") ? run_model(args[1], *a, args.size() > 2 ? args[2] : "") : read_logits(args[1]);
  if (!b.ok()) return fail(b.status().message());
  if (a->tokens != b->tokens || a->vocabulary != b->vocabulary) return fail("different tokens or vocabularies");
  const Distance d = distance(*a, *b);
  fmt::print("{{\"kl_mean\": {}, \"kl_max\": {}, \"same_top\": {}, \"positions\": {}, \"vocabulary\": {}}}\n",
             d.kl_mean, d.kl_max, d.same_top, a->rows.size(), a->vocabulary);
  return 0;
}

}  // namespace
}  // namespace stoke

int main(int argc, char** argv) { return stoke::main_of({argv + 1, argv + argc}); }
