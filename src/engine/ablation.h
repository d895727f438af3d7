// The steps of the paper's ablation (PowerInfer-2, figure 14) and its second baseline: parts of the engine that can be
// switched off, each under one name. None changes a bit of the answer.
//
// dense      every layer's records are brought whole and in order for every token; none is kept
// bundles    only records that fire are read; none is kept; a layer's reads wait for all of its gates, and its up and
//            down products for all of its reads
// cache      and records are kept, by frequency
// pipeline   and clusters go on by themselves, without waiting for each other; the cache begins empty
// hot        and what the store says of how often neurons fire is used: the hottest are dense runs of memory, the next
//            are brought to the cache before the first token. Everything on: the default
// flash      LLM in a Flash (arXiv 2312.11514): bundles, and a window of the latest tokens' records. The window is
//            kLru: it keeps the records used last, so those of as many tokens as fit, and what a fixed number of tokens
//            would keep is among them wherever it fits at all; a slot given up earlier would only stay empty.
// lru        as pipeline, but the cache's policy is the paper's
// Thread role: any; plain data.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cache/unit_cache.h"

namespace stoke::engine {

struct Ablation {
  std::string_view name = "hot";
  bool whole_layers = false;
  bool keep = true;       // a cache of records
  bool barriers = false;  // between gates, reads and products of a layer
  bool hot = true;        // a hot segment, and a cache that begins full
  cache::PolicyKind policy = cache::PolicyKind::kLfu;
};

// Empty: everything on. kInvalid lists the names.
Result<Ablation> find_ablation(const std::string& name);

}  // namespace stoke::engine
