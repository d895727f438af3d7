// A weight source that stops a forward pass between two matrices when asked to, so that Ctrl-C never waits for a batch,
// and that tells how far loading has come while passes wait for it, or that a streaming pass goes on.
//
// Thread role: the control thread. Ownership: the inner source outlives it.
#pragma once

#include <functional>
#include <utility>

#include "engine/resident_source.h"
#include "model/weight_source.h"
#include "stoke/stoke.h"

namespace stoke::engine {

class CancellableSource final : public model::WeightSource {
 public:
  // `loading`: the resident source that reports progress; null: nothing to report.
  // `tick`: called before each lease; may be empty.
  CancellableSource(model::WeightSource& inner, const ResidentSource* loading, ProgressCallback progress,
                    std::function<void()> tick)
      : inner_(inner),
        loading_(loading),
        progress_(loading == nullptr ? nullptr : std::move(progress)),
        tick_(std::move(tick)) {}

  // Null: nobody can cancel. Must outlive the passes that follow.
  void watch(const CancelFlag* flag) { flag_ = flag; }

  const model::MatrixInfo& matrix(model::MatrixId id) const override { return inner_.matrix(id); }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    if (flag_ != nullptr && flag_->load(std::memory_order_relaxed)) return Status(Code::kCancelled, "cancelled");
    if (progress_) report();
    if (tick_) tick_();
    return inner_.acquire(id, wanted);
  }
  void release(model::MatrixId id, const RowsView& rows) override { inner_.release(id, rows); }
  void begin_pass(bool logits) override { inner_.begin_pass(logits); }
  void expect(std::span<const model::ExpectedProduct> products) override { inner_.expect(products); }
  bool guesses(const model::MatrixSlice& router) const override { return inner_.guesses(router); }
  void begin_guess() override { inner_.begin_guess(); }
  void guess(const model::ExpectedProduct& product) override { inner_.guess(product); }
  bool at_hand(model::MatrixId id, int64_t row) const override { return inner_.at_hand(id, row); }
  bool help() override { return inner_.help(); }
  void expect_rows(model::MatrixId id, std::span<const int32_t> rows) override { inner_.expect_rows(id, rows); }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override { return inner_.read_row(id, row, dst); }

 private:
  void report() {
    const LoadStats load = loading_->stats();
    progress_(load.finished ? 1 : static_cast<double>(load.bytes_read) / static_cast<double>(load.arena_bytes + 1));
    if (load.finished) progress_ = nullptr;
  }

  model::WeightSource& inner_;
  const ResidentSource* loading_;
  ProgressCallback progress_;  // empty once everything is there
  std::function<void()> tick_;
  const CancelFlag* flag_ = nullptr;
};

}  // namespace stoke::engine
