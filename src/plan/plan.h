// How the bytes of a budget are split for a neuron store that does not fit: plain data, and the rule that makes it.
//
// Three segments share the room that the budget leaves beside activations and tables. Fixed: matrices (attention,
// gates, head), which every token uses whole; those that have no place stream. Hot: the neurons that fire most, of
// every expert the same number, as dense runs of records: no slot, no look-up, never evicted. Cold: slots of single
// records. KV lies in the cold segment's room and grows into it: hot is sized for the full context, so it never yields.
//
// THE RULE. A byte in memory is worth the time that it saves a token. A matrix' byte saves 1 / rate. A record's byte
// saves p (request + bytes / rate) / bytes where its neuron fires for a share p of the tokens. So records with p of at
// least bytes / (bytes + request * rate) come before matrices (4,608 bytes, 11 us, 2.2 GB/s: p of 0.16), then matrices,
// then the other records. Nothing known of the neurons: a quarter is taken to be above that, as in the published skew,
// where 26 % of the neurons take 80 % of the firings.
// Hot are whole clusters whose coldest neuron fires at least twice as often as the coldest record that fits: so much
// may another text differ before a static choice loses to one that learns (cache/lfu.h), which rules over the rest.
// Thread role: any; pure functions over values. Errors: none; who asks has checked that the least fits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace stoke::plan {

// What a read costs with many in flight: request_s + bytes / bytes_per_s.
struct Disk {
  // docs/reads.md: 4,608 bytes at depth 32, and 1 MiB at depth 4, as matrices are read.
  double request_s = 11e-6;
  double bytes_per_s = 2.2e9;
};
struct DiskSample {
  uint64_t request_bytes = 0;
  double bytes_per_s = 0;
};
// From measured rates of random reads at one depth; the default where fewer than two sizes were measured, or where they
// are not a line that rises.
Disk fit_disk(std::span<const DiskSample> samples);

struct Layer {
  int64_t experts = 1;
  int64_t neurons = 0;  // of one expert
  // (experts, neurons) share of all tokens for which each fires, as halves in [0, 1]; empty: not known.
  std::span<const uint16_t> rates;
};

struct Request {
  int64_t room = 0;            // bytes for the three segments, KV among them
  int64_t kv = 0;              // of a full context
  int64_t matrices = 0;        // bytes that hold all of them
  int64_t matrices_least = 0;  // that make progress
  int64_t records_least = 0;   // likewise, tables included
  int64_t tables = 0;          // of the cache, which do not depend on its slots
  int64_t record_bytes = 0;    // of the largest record
  int64_t slot_bytes = 0;      // of a slot, with its bookkeeping
  bool hot_first = false;      // neurons lie in the order of their rates
  Disk disk;
  std::vector<Layer> layers;
};

struct Plan {
  int64_t fixed_bytes = 0;
  int64_t hot_bytes = 0;
  int64_t cold_bytes = 0;            // all else of the room: slots, tables, and KV as it grows
  std::vector<int64_t> hot_neurons;  // by layer: of every expert, the first ones; whole clusters
  // What to bring before the first token: cold records that fire for at least this share (a half), but at most so many
  // (what fits beside a full context). Nothing known: the first ones of every dense layer, evenly.
  uint16_t fill_rate = 0;
  int64_t fill_records = 0;
};

Plan make_plan(const Request& request);

}  // namespace stoke::plan
