// A file of which neurons fired: what the cache was asked for, token by token, for `bench_cache_policies --trace`.
//
// Text. The first line is `# firings: LAYERS layers of NEURONS neurons`; then, for each layer of each pass, a line
// `LAYER NEURON NEURON ...` (numbers from 0, neurons ascending; experts' neurons are numbered expert after expert), and
// an empty line between passes. Only passes of few tokens are written, those that look neurons up one by
// one: a decoded token, or the union over several that were decoded together. Of a prompt nothing is, though its last
// token may go through the last layer by itself; a pass that was cancelled ends early. About 6 bytes a firing.
// Thread role: the control thread. Ownership: its file and a buffer; the tables outlive it. After construction nothing
// is allocated (but for the text of a failure). Errors: those of writing: kIo, kNoSpace, naming the file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"
#include "pipeline/cluster_job.h"
#include "pipeline/neuron_table.h"
#include "sys/files.h"

namespace stoke::pipeline {

class FiringLog {
 public:
  // Creates or empties the file. tables: of all layers, in their order.
  static Result<std::unique_ptr<FiringLog>> create(const std::string& path, std::span<const NeuronTable> tables);

  // One of the tables was computed; jobs: all its clusters, in ascending neurons. Written when it returns.
  Status add(const NeuronTable& table, std::span<const ClusterJob> jobs);

 private:
  FiringLog(sys::File file, std::span<const NeuronTable> tables) : file_(std::move(file)), tables_(tables) {}
  Status put(int64_t number);
  Status flush();

  sys::File file_;
  std::span<const NeuronTable> tables_;
  size_t next_ = 0;  // the table that goes on with the pass
  bool any_ = false;
  uint64_t written_ = 0;
  size_t used_ = 0;
  std::array<char, size_t{64} << 10> buffer_;
};

}  // namespace stoke::pipeline
