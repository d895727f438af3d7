// The byte door: how the forward pass gets at weights, wherever they are.
//
// Attention, experts, head and FFN alike ask for a *lease on row blocks of a matrix*. A resident source answers with
// all the rows at once; a streaming source answers with what it has, or waits for a read, and may answer with fewer
// rows than asked: the caller computes those, releases, and asks again from lease.rows.end. Embedding rows are fetched
// singly.
// A streaming source works better for knowing what comes: begin_pass(), expect() and expect_rows() tell it, at_hand()
// asks it; a resident one ignores them.
// Thread role: the control thread only; the leased bytes may be read by any worker until release.
// Ownership: the source owns the bytes; they stay valid and unchanged while leased.
// The forward pass holds at most kMaxLeases leases at once, and waits in acquire() holding at most the gate's block of
// a gated product: a source with room for two row blocks always makes progress.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "tensor/matrix.h"

namespace stoke::model {

inline constexpr int kMaxLeases = 64;

// Index into the source's table of matrices.
struct MatrixId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
};

// What a matrix is, without its bytes. Experts of one layer lie one after another as rows of one matrix.
struct MatrixInfo {
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  size_t row_bytes = 0;
};

// Rows of a matrix that act as a matrix of their own.
struct MatrixSlice {
  MatrixId id;
  RowRange rows;
  bool valid() const { return id.valid(); }
};

// One product to come: all rows of w, and of up beside them, block by block, where it is gated.
struct ExpectedProduct {
  MatrixSlice w;
  MatrixSlice up;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual const MatrixInfo& matrix(MatrixId id) const = 0;

  // Rows starting at wanted.begin: at least one, at most all that were wanted. Waits until they can be read.
  // Fails with kIo/kCorrupt (a read went wrong) or kCancelled.
  virtual Result<RowsView> acquire(MatrixId id, RowRange wanted) = 0;
  // Every acquire is paired with one release of the view that it returned.
  virtual void release(MatrixId id, const RowsView& rows) = 0;

  // A forward pass begins; without `logits` its last layer ends at the KV cache and the head is not asked for.
  // Expectations of a pass before it are void.
  virtual void begin_pass(bool /*logits*/) {}
  // These will be acquired next, in this order (experts that a router chose). May be called while leases are held.
  virtual void expect(std::span<const ExpectedProduct> /*products*/) {}
  // Whether guesses are of use, and the router that makes them is at hand: then, after what a layer needs was expected,
  // begin_guess() lets go of what was guessed before and did not come true, and guess() names what the next layer may
  // need. Never waits.
  virtual bool guesses(const MatrixSlice& /*router*/) const { return false; }
  virtual void begin_guess() {}
  virtual void guess(const ExpectedProduct& /*product*/) {}
  // Whether acquire() of rows from `row` on would answer without waiting.
  virtual bool at_hand(MatrixId /*id*/, int64_t /*row*/) const { return true; }

  // For a thread of the pool that has nothing to do within a run: a small piece of what the source has to do beside
  // answering. False where there is none. The only call that other threads than the control thread may make.
  virtual bool help() { return false; }

  // These rows will be read next, one by one in this order; `rows` stays as it is until then.
  virtual void expect_rows(MatrixId /*id*/, std::span<const int32_t> /*rows*/) {}
  // Copies one stored row (row_bytes bytes) to dst.
  virtual Status read_row(MatrixId id, int64_t row, std::byte* dst) = 0;
};

}  // namespace stoke::model
