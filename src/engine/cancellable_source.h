// A weight source that stops a forward pass between two matrices when asked to, so that Ctrl-C never waits for a batch.
//
// Thread role: the control thread. Ownership: the inner source outlives it.
#pragma once

#include "engine/weight_plan.h"
#include "model/weight_source.h"
#include "stoke/stoke.h"

namespace stoke::engine {

class CancellableSource final : public model::WeightSource {
 public:
  explicit CancellableSource(model::WeightSource& inner) : inner_(inner) {}

  // Null: nobody can cancel. Must outlive the passes that follow.
  void watch(const CancelFlag* flag) { flag_ = flag; }

  const model::MatrixInfo& matrix(model::MatrixId id) const override { return inner_.matrix(id); }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    if (flag_ != nullptr && flag_->load(std::memory_order_relaxed)) return Status(Code::kCancelled, "cancelled");
    return inner_.acquire(id, wanted);
  }
  void release(model::MatrixId id, const RowsView& rows) override { inner_.release(id, rows); }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override { return inner_.read_row(id, row, dst); }

 private:
  model::WeightSource& inner_;
  const CancelFlag* flag_ = nullptr;
};

}  // namespace stoke::engine
