#include "plan/plan.h"

#include <algorithm>
#include <numeric>

#include "tensor/half.h"
#include "tensor/neuron_record.h"

namespace stoke::plan {
namespace {

constexpr double kAssumedHotShare = 0.25;
constexpr float kHotMargin = 2;
constexpr size_t kRates = 0x3c01;  // halves from 0 to 1

bool knows_rates(const Request& r) {
  return !r.layers.empty() &&
         std::all_of(r.layers.begin(), r.layers.end(), [](const Layer& l) { return !l.rates.empty(); });
}

int64_t record_count(const Request& r) {
  int64_t count = 0;
  for (const Layer& layer : r.layers) count += layer.experts * layer.neurons;
  return count;
}

// How many records have each rate; hot ones left out.
class Histogram {
 public:
  Histogram(const Request& r, const std::vector<int64_t>& hot) : counts_(kRates) {
    for (size_t l = 0; l < r.layers.size(); ++l) {
      const Layer& layer = r.layers[l];
      for (size_t i = 0; i < layer.rates.size(); ++i) {
        if (static_cast<int64_t>(i) % layer.neurons < hot[l]) continue;
        ++counts_[std::min<size_t>(layer.rates[i], kRates - 1)];
      }
    }
  }
  int64_t at_least(float rate) const {
    int64_t count = 0;
    for (size_t bits = kRates; bits-- > 0 && half_to_float(static_cast<uint16_t>(bits)) >= rate;) {
      count += counts_[bits];
    }
    return count;
  }
  // The rate of the coldest of the `count` records that fire most; 0 where there are no more.
  uint16_t of_rank(int64_t count) const {
    int64_t seen = 0;
    for (size_t bits = kRates; bits-- > 1;) {
      seen += counts_[bits];
      if (seen >= count) return static_cast<uint16_t>(bits);
    }
    return 0;
  }

 private:
  std::vector<int64_t> counts_;  // by the rate's bits
};

// Bytes of records that are worth more than as many bytes of matrices.
int64_t preferred_bytes(const Request& r, const std::vector<int64_t>& none) {
  if (!knows_rates(r)) {
    const auto share = static_cast<int64_t>(kAssumedHotShare * static_cast<double>(record_count(r)));
    return std::min(share * r.slot_bytes, (r.room - r.kv) / 2);  // a guess does not take more than half
  }
  const auto bytes = static_cast<double>(r.record_bytes);
  const double rate = bytes / (bytes + r.disk.request_s * r.disk.bytes_per_s);
  return Histogram(r, none).at_least(static_cast<float>(rate)) * r.slot_bytes + r.tables;
}

// The mean over the experts of how often neuron i fires.
float mean_rate(const Layer& layer, int64_t i) {
  float sum = 0;
  for (int64_t e = 0; e < layer.experts; ++e) {
    sum += half_to_float(layer.rates[static_cast<size_t>(e * layer.neurons + i)]);
  }
  return sum / static_cast<float>(layer.experts);
}

int64_t hot_bytes(const Request& r, const std::vector<int64_t>& hot) {
  int64_t bytes = 0;
  for (size_t l = 0; l < hot.size(); ++l) bytes += hot[l] * r.layers[l].experts * r.record_bytes;
  return bytes;
}

// Whole clusters from the front of every layer whose coldest neuron fires at least so often.
void choose_hot(const Request& r, float rate, std::vector<int64_t>* hot) {
  for (size_t l = 0; l < hot->size(); ++l) {
    const Layer& layer = r.layers[l];
    int64_t& count = (*hot)[l] = 0;
    while (count + kClusterNeurons <= layer.neurons && mean_rate(layer, count + kClusterNeurons - 1) >= rate) {
      count += kClusterNeurons;
    }
  }
}

}  // namespace

Disk fit_disk(std::span<const DiskSample> samples) {
  const auto by_size = [](const DiskSample& a, const DiskSample& b) { return a.request_bytes < b.request_bytes; };
  const auto [small, large] = std::minmax_element(samples.begin(), samples.end(), by_size);
  if (small == large || small->bytes_per_s <= 0 || large->bytes_per_s <= 0) return {};
  const auto time = [](const DiskSample& s) { return static_cast<double>(s.request_bytes) / s.bytes_per_s; };
  const double rise = time(*large) - time(*small);
  if (rise <= 0) return {};
  const double rate = static_cast<double>(large->request_bytes - small->request_bytes) / rise;
  return {.request_s = std::max(0.0, time(*small) - static_cast<double>(small->request_bytes) / rate),
          .bytes_per_s = rate};
}

Plan make_plan(const Request& r) {
  Plan plan;
  plan.hot_neurons.assign(r.layers.size(), 0);
  const int64_t least = std::max(r.records_least, preferred_bytes(r, plan.hot_neurons));
  const int64_t records =
      std::clamp(least, r.records_least, std::max(r.records_least, r.room - r.kv - r.matrices_least));
  plan.fixed_bytes = std::min(r.matrices, r.room - r.kv - records);
  const int64_t kept = r.room - r.kv - plan.fixed_bytes;  // for records, when the context is full
  const bool known = knows_rates(r);
  if (known && r.hot_first) {
    const Histogram all(r, plan.hot_neurons);
    float rate = kHotMargin * half_to_float(all.of_rank((kept - r.tables) / r.slot_bytes));
    rate = std::max(rate, 0x1p-24F);  // what never fired is not hot
    choose_hot(r, rate, &plan.hot_neurons);
    while (hot_bytes(r, plan.hot_neurons) > kept - r.records_least && rate <= 1) {
      choose_hot(r, rate *= kHotMargin, &plan.hot_neurons);
    }
    if (hot_bytes(r, plan.hot_neurons) > kept - r.records_least) plan.hot_neurons.assign(r.layers.size(), 0);
  }
  plan.hot_bytes = hot_bytes(r, plan.hot_neurons);
  plan.cold_bytes = r.room - plan.fixed_bytes - plan.hot_bytes;
  plan.fill_records = std::max<int64_t>(0, (kept - plan.hot_bytes - r.tables) / r.slot_bytes);
  if (known) plan.fill_rate = std::max<uint16_t>(1, Histogram(r, plan.hot_neurons).of_rank(plan.fill_records));
  return plan;
}

}  // namespace stoke::plan
