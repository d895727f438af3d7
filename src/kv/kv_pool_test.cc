// A random walk of forks, appends and truncations against a naive model (every sequence its own vector), and the
// errors. A position's content is a number put into the tiles by hand: the pool only moves bytes.
#include "kv/kv_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace stoke::kv {
namespace {

constexpr PoolOptions kSmall = {.layers = 2, .kv_heads = 2, .head_dim = 8, .max_context = 400, .pages = 24};

std::unique_ptr<KvPool> make(const PoolOptions& options) {
  auto pool = KvPool::create(options);
  EXPECT_TRUE(pool.ok()) << pool.status().message();
  return std::move(pool).value();
}

// The place of one position's element in V of a tile; K is alike and transposed.
uint16_t& v_at(const MutableTile& tile, int64_t pos) { return static_cast<uint16_t*>(tile.v)[pos % 64 * 16 + 3]; }
uint16_t& k_at(const MutableTile& tile, int64_t pos) { return static_cast<uint16_t*>(tile.k)[5 * 64 + pos % 64]; }

void put(KvPool& pool, SeqId seq, int64_t pos, uint16_t value) {
  for (int layer = 0; layer < pool.options().layers; ++layer) {
    for (int head = 0; head < pool.options().kv_heads; ++head) {
      const MutableTile tile = pool.writable_tile(seq, pos / 64, layer, head);
      v_at(tile, pos) = static_cast<uint16_t>(value + layer);
      k_at(tile, pos) = static_cast<uint16_t>(value + head);
    }
  }
}

bool holds(const KvPool& pool, SeqId seq, int64_t pos, uint16_t value) {
  for (int layer = 0; layer < pool.options().layers; ++layer) {
    for (int head = 0; head < pool.options().kv_heads; ++head) {
      const TileView tile = pool.tile(seq, pos / 64, layer, head);
      const uint16_t v = static_cast<const uint16_t*>(tile.v)[pos % 64 * 16 + 3];
      const uint16_t k = static_cast<const uint16_t*>(tile.k)[5 * 64 + pos % 64];
      if (v != static_cast<uint16_t>(value + layer) || k != static_cast<uint16_t>(value + head)) return false;
    }
  }
  return true;
}

// The walk: one pool and what every sequence should hold.
class Walk {
 public:
  explicit Walk(uint32_t seed) : random_(seed), pool_(make(kSmall)) {}

  void step() {
    const int what = below(10);
    if (model_.empty() || what == 0) {
      model_[pool_->create_sequence().index] = {};
    } else if (what == 1 && model_.size() < 12) {
      const int32_t parent = any();
      const SeqId child = pool_->fork(SeqId{parent});
      ASSERT_FALSE(model_.contains(child.index));
      model_[child.index] = model_[parent];
    } else if (what == 2) {
      const int32_t seq = any();
      model_.erase(seq);
      pool_->release(SeqId{seq});
    } else if (what <= 4) {
      const int32_t seq = any();
      const size_t length = static_cast<size_t>(below(static_cast<int>(model_[seq].size()) + 1));
      model_[seq].resize(length);
      pool_->truncate(SeqId{seq}, static_cast<int64_t>(length));
    } else {
      append(any());
    }
  }

  void compare() {
    int64_t pages_at_most = 0;
    int64_t pages_at_least = 0;
    for (const auto& [index, values] : model_) {
      const SeqId seq{index};
      ASSERT_EQ(pool_->length(seq), static_cast<int64_t>(values.size()));
      for (size_t pos = 0; pos < values.size(); ++pos) {
        ASSERT_TRUE(holds(*pool_, seq, static_cast<int64_t>(pos), values[pos]))
            << "sequence " << index << " at " << pos;
      }
      const int64_t pages = (static_cast<int64_t>(values.size()) + 63) / 64;
      pages_at_most += pages;
      pages_at_least = std::max(pages_at_least, pages);
    }
    const int64_t used = kSmall.pages - pool_->free_pages();
    EXPECT_LE(used, pages_at_most);
    EXPECT_GE(used, pages_at_least);
  }

  void release_all() {
    for (const auto& [index, values] : model_) pool_->release(SeqId{index});
    model_.clear();
    EXPECT_EQ(pool_->free_pages(), kSmall.pages);
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  int32_t any() { return std::next(model_.begin(), below(static_cast<int>(model_.size())))->first; }

  void append(int32_t index) {
    const SeqId seq{index};
    const int64_t n = below(100);
    const int64_t length = pool_->length(seq);
    const int64_t free_before = pool_->free_pages();
    const Status status = pool_->reserve(seq, n);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), length + n > kSmall.max_context ? Code::kContextFull : Code::kNoMemory);
      EXPECT_EQ(pool_->free_pages(), free_before);
      return;
    }
    for (int64_t pos = length; pos < length + n; ++pos) {
      const uint16_t value = static_cast<uint16_t>(random_());
      put(*pool_, seq, pos, value);
      model_[index].push_back(value);
    }
    pool_->commit(seq, n);
  }

  std::mt19937 random_;
  std::unique_ptr<KvPool> pool_;
  std::map<int32_t, std::vector<uint16_t>> model_;
};

TEST(KvPool, RandomWalk_ContentsEqualTheNaiveCopyAndNoPageLeaks) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Walk walk(seed);
    for (int i = 0; i < 300 && !testing::Test::HasFatalFailure(); ++i) {
      walk.step();
      if (i % 10 == 0) walk.compare();
    }
    walk.compare();
    walk.release_all();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(KvPool, Fork_SharesPagesUntilOneWrites) {
  auto pool = make(kSmall);
  const SeqId a = pool->create_sequence();
  ASSERT_TRUE(pool->reserve(a, 100).ok());
  pool->commit(a, 100);
  const SeqId b = pool->fork(a);
  EXPECT_EQ(pool->free_pages(), kSmall.pages - 2);
  ASSERT_TRUE(pool->reserve(b, 1).ok());  // position 100 falls into the shared second page
  EXPECT_EQ(pool->free_pages(), kSmall.pages - 3);
  EXPECT_EQ(pool->tile(a, 0, 1, 1).k, pool->tile(b, 0, 1, 1).k);
  EXPECT_NE(pool->tile(a, 1, 1, 1).k, pool->tile(b, 1, 1, 1).k);
  ASSERT_TRUE(pool->reserve(a, 1).ok());  // the other one is now its only owner
  EXPECT_EQ(pool->free_pages(), kSmall.pages - 3);
}

TEST(KvPool, Reserve_TwiceTakesNoMore) {
  auto pool = make(kSmall);
  const SeqId a = pool->create_sequence();
  ASSERT_TRUE(pool->reserve(a, 65).ok());
  ASSERT_TRUE(pool->reserve(a, 65).ok());
  EXPECT_EQ(pool->free_pages(), kSmall.pages - 2);
  pool->truncate(a, 0);
  EXPECT_EQ(pool->free_pages(), kSmall.pages);
}

TEST(KvPool, Release_RecyclesIds) {
  auto pool = make(kSmall);
  const SeqId a = pool->create_sequence();
  pool->release(a);
  EXPECT_EQ(pool->create_sequence().index, a.index);
}

TEST(KvPool, Tiles_AreAlignedAndDisjoint) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    for (const int dim : {1, 16, 40, 64, 80, 128}) {
      auto pool = make({.layers = 2, .kv_heads = 3, .head_dim = dim, .type = type, .max_context = 128, .pages = 2});
      const SeqId a = pool->create_sequence();
      ASSERT_TRUE(pool->reserve(a, 128).ok());
      std::set<const void*> parts;
      for (int i = 0; i < 12; ++i) {
        const TileView t = pool->tile(a, i / 6, i / 3 % 2, i % 3);
        for (const void* part : {t.k, t.v, static_cast<const void*>(t.k_scale), static_cast<const void*>(t.v_scale)}) {
          EXPECT_EQ(reinterpret_cast<uintptr_t>(part) % 64, 0u);
          EXPECT_TRUE(part == nullptr || parts.insert(part).second);
        }
      }
    }
  }
}

TEST(KvPool, Create_RefusesNonsenseAndTheImpossible) {
  EXPECT_EQ(KvPool::create({}).status().code(), Code::kInvalid);
  const PoolOptions huge = {.layers = 65536, .kv_heads = 65536, .head_dim = 65536, .max_context = 64, .pages = 1 << 30};
  EXPECT_EQ(KvPool::create(huge).status().code(), Code::kNoMemory);
}

TEST(KvPool, Reserve_SaysWhatIsFull) {
  auto pool = make({.layers = 1, .kv_heads = 1, .head_dim = 8, .max_context = 200, .pages = 2});
  const SeqId a = pool->create_sequence();
  EXPECT_EQ(pool->reserve(a, 201).code(), Code::kContextFull);
  EXPECT_EQ(pool->reserve(a, 129).code(), Code::kNoMemory);
  EXPECT_EQ(pool->free_pages(), 2);
  EXPECT_TRUE(pool->reserve(a, 128).ok());
}

}  // namespace
}  // namespace stoke::kv
