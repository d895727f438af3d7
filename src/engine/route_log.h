// Writes which experts each decoded token uses, layer by layer, as pipeline/firing_log.h has it: `NEURON` is an expert.
//
// Thread role: the control thread. Ownership: its file; the config outlives it. Errors: those of writing.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"
#include "model/config.h"
#include "model/router.h"
#include "pipeline/firing_log.h"

namespace stoke::engine {

class RouteLog final : public model::RouteObserver {
 public:
  static Result<std::unique_ptr<RouteLog>> create(const std::string& path, const model::Config& config) {
    STOKE_ASSIGN(auto log, pipeline::FiringLog::create(path, config.layers, config.moe.experts));
    return std::unique_ptr<RouteLog>(new RouteLog(config, std::move(log)));
  }

  Status chose(int layer, int64_t tokens, std::span<const model::ExpertUse> uses) override {
    if (tokens != 1) return ok_status();
    const auto first = config_.layer.begin();
    return log_->add(std::count_if(first, first + layer, [](const model::LayerConfig& l) { return l.moe; }), layer,
                     uses);
  }

 private:
  RouteLog(const model::Config& config, std::unique_ptr<pipeline::FiringLog> log)
      : config_(config), log_(std::move(log)) {}

  const model::Config& config_;
  std::unique_ptr<pipeline::FiringLog> log_;
};

}  // namespace stoke::engine
