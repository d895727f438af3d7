// Any bytes as the firing statistics that `stoke convert --stats` reads: an error of one line, or counts from which
// rates and an order of the neurons come.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "convert/neuron_order.h"
#include "formats/firing_stats.h"

namespace {

using namespace stoke::formats;

void check_layer(const FiringStats& stats, size_t index) {
  const LayerFiring& layer = stats.layers[index];
  CHECK(layer.experts() > 0 && layer.neurons() > 0);
  CHECK(layer.experts() * layer.neurons() == static_cast<int64_t>(layer.fired.size()));
  const std::vector<uint16_t> rates = firing_rates(stats, index);
  CHECK(rates.size() == layer.fired.size());
  CHECK(std::all_of(rates.begin(), rates.end(), [](uint16_t rate) { return rate <= kFiringRateMax; }));
  for (const int64_t block : {1, 32}) {
    std::vector<int32_t> order = stoke::convert::hot_first_order(layer.fired, block);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < order.size(); ++i) CHECK(order[i] == static_cast<int32_t>(i));
    CHECK(order.size() == layer.fired.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  MemoryFiles files;
  files.add("m.firing.json", std::string(reinterpret_cast<const char*>(data), size));
  const auto stats = read_firing("m.firing.json", files);
  if (!stats.ok()) {
    CHECK(stats.status().message().find('\n') == std::string::npos);
    return 0;
  }
  std::vector<FiringShape> shapes;
  for (size_t layer = 0; layer < stats->layers.size(); ++layer) {
    check_layer(*stats, layer);
    shapes.push_back({stats->layers[layer].experts(), stats->layers[layer].neurons()});
  }
  CHECK(check_firing(*stats, "m.firing.json", shapes, stats->fingerprint).ok());
  CHECK(!check_firing(*stats, "m.firing.json", shapes, ~stats->fingerprint).ok());
  return 0;
}
