// A file of which neurons fired, or which experts were chosen: what the cache was asked for, token by token, for
// `bench_cache_policies --trace`.
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
#include "model/router.h"
#include "pipeline/cluster_job.h"
#include "pipeline/neuron_table.h"
#include "sys/files.h"

namespace stoke::pipeline {

class FiringLog {
 public:
  // Creates or empties the file. tables: of all layers, in their order.
  static Result<std::unique_ptr<FiringLog>> create(const std::string& path, std::span<const NeuronTable> tables);
  // Of so many numbers a layer.
  static Result<std::unique_ptr<FiringLog>> create(const std::string& path, int64_t layers, int64_t numbers);

  // One of the tables was computed; jobs: all its clusters, in ascending neurons. Written when it returns.
  Status add(const NeuronTable& table, std::span<const ClusterJob> jobs);
  // The index-th layer of those that have experts used these.
  Status add(int64_t index, int64_t layer, std::span<const model::ExpertUse> uses);

 private:
  explicit FiringLog(sys::File file) : file_(std::move(file)) {}
  bool begin(int64_t index);
  Status put(int64_t number);
  Status flush();

  sys::File file_;
  std::span<const NeuronTable> tables_;
  int64_t next_ = 0;  // the table that goes on with the pass
  bool any_ = false;
  uint64_t written_ = 0;
  size_t used_ = 0;
  std::array<char, size_t{64} << 10> buffer_;
};

}  // namespace stoke::pipeline
