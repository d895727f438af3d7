// The forward pass as a citizen: it allocates nothing once warm, says how much memory it takes, and passes on what a
// weight source reports.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/model/harness.h"

namespace {
std::atomic<int64_t> allocations{0};
}

[[gnu::noinline]] void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace stoke {
namespace {

const char* const kModels[] = {"llama", "gemma3", "qwen2moe", "gpt-oss"};

// A source whose n-th lease fails.
class FailingSource final : public model::WeightSource {
 public:
  explicit FailingSource(model::WeightSource& inner) : inner_(inner) {}
  const model::MatrixInfo& matrix(model::MatrixId id) const override { return inner_.matrix(id); }
  Result<RowsView> acquire(model::MatrixId id, RowRange wanted) override {
    if (left_-- == 0) return Status(Code::kIo, "disk on fire");
    return inner_.acquire(id, wanted);
  }
  void release(model::MatrixId id, const RowsView& rows) override { inner_.release(id, rows); }
  Status read_row(model::MatrixId id, int64_t row, std::byte* dst) override { return inner_.read_row(id, row, dst); }
  void fail_after(int leases) { left_ = leases; }

 private:
  model::WeightSource& inner_;
  int left_ = -1;
};

class ForwardTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto opened = test::Harness::open(std::string("tests/data/model/") + GetParam(), {.threads = 2});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    h_ = std::move(*opened);
    seq_ = h_->pool->create_sequence();
    ASSERT_TRUE(h_->pool->reserve(seq_, 32).ok());
  }

  std::unique_ptr<test::Harness> h_;
  kv::SeqId seq_;
};

TEST_P(ForwardTest, AllocatesNothingOnceBuilt) {
  const std::vector<int32_t> tokens(20, 5);
  const std::vector<int64_t> outputs = {19};
  std::vector<float> logits(static_cast<size_t>(h_->plan.config.vocab));
  const model::SequenceRun prompt{seq_, 0, 20, 0};
  const model::SequenceRun step{seq_, 0, 1, 20};
  const std::vector<int64_t> first = {0};
  const int64_t before = allocations.load();
  const bool done = h_->transformer->forward({tokens, std::span(&prompt, 1), outputs}).ok() &&
                    h_->transformer->logits(0, 1, logits.data()).ok() &&
                    h_->transformer->forward({std::span(tokens).first(1), std::span(&step, 1), first}).ok() &&
                    h_->transformer->logits(0, 1, logits.data()).ok();
  EXPECT_EQ(allocations.load() - before, 0);
  EXPECT_TRUE(done);
}

TEST_P(ForwardTest, PassesOnAFailedLeaseAndReleasesTheOthers) {
  FailingSource source(*h_->source);
  model::Transformer transformer({h_->plan.config, h_->plan.weights, source, *h_->pool, kernels::best(), *h_->threads},
                                 {.max_batch = 32, .max_context = 256});
  const std::vector<int32_t> tokens(4, 5);
  const std::vector<int64_t> outputs = {3};
  const model::SequenceRun run{seq_, 0, 4, 0};
  for (int leases : {0, 1, 2, 4, 5, 6}) {
    source.fail_after(leases);
    const Status status = transformer.forward({tokens, std::span(&run, 1), outputs});
    EXPECT_EQ(status.code(), Code::kIo) << "after " << leases;
    EXPECT_EQ(h_->source->leases(), 0) << "after " << leases;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ForwardTest, testing::ValuesIn(kModels), [](const auto& param) {
  std::string name = param.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace stoke
