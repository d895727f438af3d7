#include "formats/synth_tensor.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/synth_blocks.h"
#include "formats/synth_rows.h"

namespace stoke::formats {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;  // fits the second-level cache: made there, written from there
constexpr int64_t kRowGroup = 16;

int64_t rows_of(const SynthTensor& tensor) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows;
}

Status make_random(const SynthTensor& tensor, DType type, uint64_t seed, const SynthSink& sink) {
  double deviation = 1 / std::sqrt(static_cast<double>(tensor.shape.back()));
  BlockSource source(type, deviation, seed);
  const uint64_t bytes = row_bytes(type, rows_of(tensor) * tensor.shape.back());
  size_t block = info(type).block_bytes;
  std::vector<std::byte> chunk(kChunkBytes / block * block);
  for (uint64_t done = 0; done < bytes;) {
    std::span<std::byte> part = std::span(chunk).first(std::min<uint64_t>(chunk.size(), bytes - done));
    source.fill(part);
    STOKE_TRY(sink(part));
    done += part.size();
  }
  return ok_status();
}

Status make_planned(const SynthRecipe& recipe, const SynthTensor& tensor, DType type, uint64_t seed,
                    const SynthSink& sink) {
  const int64_t rows = rows_of(tensor);
  SynthRows source(recipe, type, tensor.shape.back(), seed);
  const auto groups = static_cast<int64_t>(kChunkBytes / source.row_bytes()) / kRowGroup;
  const int64_t at_once = std::min(rows, std::max<int64_t>(1, groups) * kRowGroup);
  std::vector<std::byte> chunk(static_cast<size_t>(at_once) * source.row_bytes());
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    for (int64_t i = 0; i < count; ++i) {
      source.fill(row + i, std::span(chunk).subspan(static_cast<size_t>(i) * source.row_bytes(), source.row_bytes()));
    }
    STOKE_TRY(sink(std::span(chunk).first(static_cast<size_t>(count) * source.row_bytes())));
  }
  return ok_status();
}

}  // namespace

// FNV-1a.
uint64_t tensor_seed(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

Status make_tensor(const SynthPlan& plan, const SynthTensor& tensor, DType type, uint64_t seed, const SynthSink& sink) {
  if (tensor.role == SynthRole::kNorm) {
    const std::vector<float> values(static_cast<size_t>(tensor.shape.back()), plan.recipe(tensor).constants[0]);
    return sink(std::as_bytes(std::span(values)));
  }
  const uint64_t own_seed = tensor_seed(seed, tensor.name);
  return plan.active() ? make_planned(plan.recipe(tensor), tensor, type, own_seed, sink)
                       : make_random(tensor, type, own_seed, sink);
}

}  // namespace stoke::formats
