// How often each neuron's gate fired over some text: what `stoke profile MODEL -f TEXT` records and `stoke synth`
// knows, by which `stoke convert --stats` puts hot neurons first (docs/FORMAT.md, "Firing statistics").
//
// A file is JSON, written whole or not at all. The fingerprint tells models of one shape apart: the checksum of some
// stored rows of every layer's gate, in the order in which the neurons lie. So statistics of a store whose neurons were
// put in another order are not taken for its source's. Thread role: any; pure functions. Ownership: values.
// Errors: kIo; kCorrupt for a file that is no such statistics, naming the place; kInvalid for another model's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/byte_source.h"
#include "formats/model_file.h"

namespace stoke::formats {

struct LayerFiring {
  std::vector<int64_t> tokens;  // (experts) for which each expert was computed; one number where the layer is dense
  std::vector<uint32_t> fired;  // (experts, neurons) tokens for which the gate was above zero, in the gate's order

  int64_t experts() const { return static_cast<int64_t>(tokens.size()); }
  int64_t neurons() const { return static_cast<int64_t>(fired.size()) / experts(); }
};

struct FiringStats {
  std::string model;  // for people
  uint64_t fingerprint = 0;
  int64_t tokens = 0;               // of the text
  std::vector<LayerFiring> layers;  // none where a model has dense layers of another activation: all or nothing
};

Status write_firing(const FiringStats& stats, const std::string& path);
Result<FiringStats> read_firing(const std::string& path, const FileOpener& files = DiskFiles());

// The shape that statistics must have to belong to a model.
struct FiringShape {
  int64_t experts = 1;
  int64_t neurons = 0;  // of one expert
};
// kInvalid where they are of another model: says which of shape and fingerprint differs. `path` is the statistics'.
Status check_firing(const FiringStats& stats, const std::string& path, std::span<const FiringShape> layers,
                    uint64_t fingerprint);

// Share of all tokens for which each neuron of a layer fired, as halves: (experts, neurons). A store keeps these.
std::vector<uint16_t> firing_rates(const FiringStats& stats, size_t layer);
inline constexpr uint16_t kFiringRateMax = 0x3c00;  // 1.0; halves in [0, 1] order as their bits

// Rows of a gate (of all experts together) that a fingerprint is made of.
inline constexpr int64_t kFingerprintRows = 16;
constexpr int64_t fingerprint_row(int64_t k, int64_t rows) { return k * rows / kFingerprintRows; }
// rows: the extents of those of all layers, in order.
Result<uint64_t> firing_fingerprint(const ModelFile& model, std::span<const Extent> rows);

}  // namespace stoke::formats
