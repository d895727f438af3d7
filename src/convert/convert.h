// `stoke convert`: a ReLU-family model into a neuron store (docs/FORMAT.md), in a stream.
//
// Memory is about one expert's (a dense layer's) Down, and some megabytes; with statistics its records, too. The store
// is written as OUTPUT.part beside OUTPUT.journal, verified, and then renamed; stopped at any moment, the same call
// goes on where it was. The same source and options give the same bytes. Thread role: the control thread; columns are
// encoded on a pool of its own. Errors: kUnsupported and kInvalid where the model cannot become a store, kNoSpace where
// the disk is full (what was written stays for the next try), kCancelled, kIo, kCorrupt.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "tensor/neuron_record.h"

namespace stoke::convert {

struct ConvertProgress {
  bool verifying = false;
  uint64_t done = 0;  // bytes of the store
  uint64_t total = 0;
  uint64_t resumed = 0;  // bytes that an earlier call had written
};

struct ConvertOptions {
  std::string model;
  std::string output;
  RecordLayout layout = RecordLayout::kSplit;
  std::string down;     // a type's name, "codes", or empty: chosen by the source's (store_plan.h)
  std::string quant;    // type that float matrices become; empty: they stay
  std::string ffn_act;  // the activation, of a file that states none
  std::string stats;    // firing statistics (formats/firing_stats.h): hot neurons come first; empty: the source's order
  int threads = 1;
  uint64_t commit_bytes = uint64_t{64} << 20;  // between syncs: what a kill can cost
  // Called now and then; false stops with kCancelled. May be empty.
  std::function<bool(const ConvertProgress&)> progress;
};

struct ConvertSummary {
  uint64_t bytes = 0;  // of the store
  uint64_t resumed = 0;
  int64_t layers = 0;
  int64_t neurons = 0;        // records
  uint64_t record_bytes = 0;  // of layer 0's
  std::string up, down;       // types of layer 0's, in words
};

Result<ConvertSummary> convert(const ConvertOptions& options);

}  // namespace stoke::convert
