// How fast a model bigger than its memory will decode, said before it starts: what a token reads and goes through, and
// what disk and memory give.
//
// Reading and computing go on side by side, so the slower of the two is the bound; overheads are not counted. Which
// weights a token will choose (experts, neurons) nobody knows before: then there are two figures, with their
// assumption. Thread role: the control thread. Ownership: values. Errors: none; what is not known is zero, and left
// out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/chunk_reader.h"
#include "pipeline/io_queue.h"
#include "pipeline/unit_table.h"
#include "stoke/stoke.h"
#include "tensor/record_table.h"

namespace stoke::engine {

// Of one token.
struct TokenWork {
  uint64_t dense = 0;        // bytes of weights that every token goes through
  uint64_t streamed = 0;     // of them, read for each
  uint64_t chosen = 0;       // bytes that a token chooses beside: experts, or records that fire
  double chosen_here = 1;    // share in memory of all that it may choose from
  size_t record_bytes = 0;   // what is chosen are single records; 0: experts, in large reads
  bool rates_known = false;  // chosen and chosen_here go by how often each record was seen to fire
};

struct ReadRates {
  double large_bytes_per_s = 0;
  double small_bytes_per_s = 0;  // of single records; 0: not asked
  double dram_bytes_per_s = 0;   // 0: not measured
  std::string source;
};

// Neurons that fire, where nothing is known of a store: ReLU models of the literature lie around it.
inline constexpr double kFiringShare = 0.15;

// From `stoke profile`, where it was run for this machine and the disk that holds `path`.
std::optional<ReadRates> kept_rates(const std::string& path, int threads, size_t record_bytes);
// From a few reads of the model itself, at most about 100 ms, counted by the queue. Takes 4 MiB of memory meanwhile, or
// four units' bytes. Zeros where a read failed: whoever needs the bytes will say so.
ReadRates trial_rates(pipeline::IoQueue& queue, const pipeline::UnitTable& units,
                      const std::vector<RecordTable>& records, const std::vector<OpenedFile>& files);

Forecast forecast(const TokenWork& work, const ReadRates& rates);

// What there is to say about a budget near the least that runs; empty elsewhere.
struct Tightness {
  int64_t budget = 0;
  int64_t least = 0;  // that runs with this context
  int64_t context = 0;
  int64_t weights = 0;  // bytes in all
  int64_t full = 0;     // budget that holds the model whole
  int64_t batch = 0;    // prompt tokens a pass
};
std::string tight_advice(const Tightness& budget, const TokenWork& work);

}  // namespace stoke::engine
