// Attention over the pool against double precision, and its bits: any chunking of the prompt, any batch, any number of
// threads and any instruction set give the same ones.
#include "model/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tensor/half.h"

namespace stoke::model {
namespace {

using Floats = std::vector<float>;
constexpr double kUlp = 0x1p-24;

struct Case {
  const char* name;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 64;
  kv::KvType type = kv::KvType::kF16;
  int64_t length = 150;
  int64_t window = 0;
  float softcap = 0;
  bool sinks = false;
};

const std::vector<Case> kCases = {
    {.name = "grouped"},
    {.name = "q8_0", .type = kv::KvType::kQ8_0},
    {.name = "one head each", .heads = 3, .kv_heads = 3},
    {.name = "seven to one", .heads = 14, .head_dim = 32, .length = 70},
    {.name = "dim 80", .head_dim = 80},
    {.name = "dim 80 q8_0", .head_dim = 80, .type = kv::KvType::kQ8_0},
    {.name = "dim 96", .head_dim = 96},
    {.name = "dim 128", .head_dim = 128, .length = 131},
    {.name = "dim 256", .heads = 4, .kv_heads = 1, .head_dim = 256, .length = 100},
    {.name = "tiny dim", .head_dim = 8},
    {.name = "odd dim", .head_dim = 20},
    {.name = "odd dim q8_0", .head_dim = 20, .type = kv::KvType::kQ8_0},
    {.name = "window", .window = 40},
    {.name = "window of one", .window = 1},
    {.name = "window longer", .window = 1000},
    {.name = "softcap", .softcap = 5},
    {.name = "sinks", .sinks = true},
    {.name = "all at once", .head_dim = 64, .type = kv::KvType::kQ8_0, .window = 70, .softcap = 20, .sinks = true},
    {.name = "long", .heads = 3, .kv_heads = 1, .head_dim = 16, .length = 1100},
    {.name = "long window", .heads = 3, .kv_heads = 1, .head_dim = 16, .length = 1100, .window = 600, .sinks = true},
};

// Queries, keys and values of one sequence.
struct Data {
  Floats q, k, v, sinks;
  explicit Data(const Case& c, uint32_t seed = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> d;
    q.resize(static_cast<size_t>(c.length * c.heads * c.head_dim));
    k.resize(static_cast<size_t>(c.length * c.kv_heads * c.head_dim));
    v.resize(k.size());
    for (Floats* x : {&q, &k, &v}) {
      for (float& e : *x) e = d(random);
    }
    for (int h = 0; h < c.heads && c.sinks; ++h) sinks.push_back(d(random));
  }
};

// A pool, and the sequences' attention computed run by run.
class World {
 public:
  World(const Case& c, const char* isa, int threads) : case_(c), kernels_(*kernels::find(isa)), threads_(threads) {
    pool_ = kv::KvPool::create({.layers = 2,
                                .kv_heads = c.kv_heads,
                                .head_dim = c.head_dim,
                                .type = c.type,
                                .max_context = c.length,
                                .pages = 4 * (c.length / 64 + 1)})
                .value();
    const AttentionShape s = shape(nullptr);
    scratch_ = sys::Memory::map(attention_scratch_bytes(s, threads, c.length)).value();
  }

  kv::KvPool& pool() { return *pool_; }

  AttentionShape shape(const Data* data) const {
    return {.heads = case_.heads,
            .kv_heads = case_.kv_heads,
            .head_dim = case_.head_dim,
            .scale = 1 / std::sqrt(static_cast<float>(case_.head_dim)),
            .softcap = case_.softcap,
            .window = case_.window,
            .sinks = data != nullptr && case_.sinks ? data->sinks.data() : nullptr};
  }

  // Stores and attends `runs` whose rows lie in data at row `first`; outputs go to the same rows of out.
  void step(const Data& data, const std::vector<SequenceRun>& runs, Floats& out) {
    for (const SequenceRun& run : runs) {
      ASSERT_TRUE(pool_->reserve(run.seq, run.count).ok());
      const NewKv rows{data.k.data(), data.v.data(), case_.kv_heads * case_.head_dim};
      store_kv(*pool_, run, 1, 0, 1, rows, kernels_);
      store_kv(*pool_, run, 1, 1, case_.kv_heads, rows, kernels_);
    }
    const int64_t stride = static_cast<int64_t>(case_.heads) * case_.head_dim;
    attention({.shape = shape(&data),
               .pool = pool_.get(),
               .layer = 1,
               .runs = runs,
               .q = data.q.data(),
               .q_stride = stride,
               .out = out.data(),
               .out_stride = stride,
               .scratch = scratch_.data()},
              kernels_, threads_);
    for (const SequenceRun& run : runs) pool_->commit(run.seq, run.count);
  }

  // The whole sequence, `sizes` tokens at a time (the last size repeats).
  Floats prefill(const Data& data, const std::vector<int64_t>& sizes) {
    const kv::SeqId seq = pool_->create_sequence();
    Floats out(data.q.size(), -1);
    size_t next = 0;
    for (int64_t pos = 0; pos < case_.length;) {
      const int64_t n = std::min(sizes[std::min(next++, sizes.size() - 1)], case_.length - pos);
      step(data, {{.seq = seq, .first = pos, .count = n, .pos = pos}}, out);
      pos += n;
    }
    last_ = seq;
    return out;
  }

  // Element of K (or V) as the pool holds it, of the last sequence prefilled.
  double stored(bool value, int64_t pos, int head, int64_t d) const {
    const kv::TileView t = pool_->tile(last_, pos / 64, 1, head);
    const int64_t p = pos % 64;
    const int64_t at = value ? p * ((case_.head_dim + 15) / 16 * 16) + d : d * 64 + p;
    const void* base = value ? t.v : t.k;
    if (case_.type == kv::KvType::kF16) return half_to_float(static_cast<const uint16_t*>(base)[at]);
    const int64_t scale_at = value ? p * ((case_.head_dim + 31) / 32) + d / 32 : d / 32 * 64 + p;
    const float scale = half_to_float((value ? t.v_scale : t.k_scale)[scale_at]);
    return static_cast<double>(scale) * static_cast<const int8_t*>(base)[at];
  }

 private:
  Case case_;
  const kernels::Kernels& kernels_;
  sys::ThreadPool threads_;
  std::unique_ptr<kv::KvPool> pool_;
  sys::Memory scratch_;
  kv::SeqId last_;
};

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// One head of one query in double precision, with what FP32 may lose.
struct Expected {
  std::vector<double> out, tolerance;
};

Expected reference(const Case& c, const World& world, const Data& data, int64_t p, int head) {
  const AttentionShape s = world.shape(&data);
  const int kv_head = head / (c.heads / c.kv_heads);
  const float* q = data.q.data() + (p * c.heads + head) * c.head_dim;
  const int64_t oldest = c.window > 0 ? std::max<int64_t>(0, p - c.window + 1) : 0;
  std::vector<double> score;
  double top = c.sinks ? data.sinks[static_cast<size_t>(head)] : -INFINITY;
  double score_error = 0;
  for (int64_t i = oldest; i <= p; ++i) {
    double dot = 0, size = 0;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      dot += q[d] * world.stored(false, i, kv_head, d);
      size += std::abs(q[d] * world.stored(false, i, kv_head, d));
    }
    dot *= s.scale;
    // A rounding an FMA, the scale's product, and six of the cap's size.
    score_error = std::max(score_error, (c.head_dim + 1) * kUlp * size * s.scale + 6 * kUlp * c.softcap);
    score.push_back(c.softcap > 0 ? c.softcap * std::tanh(dot / c.softcap) : dot);
    top = std::max(top, score.back());
  }
  double sum = c.sinks ? std::exp(data.sinks[static_cast<size_t>(head)] - top) : 0;
  Expected e{std::vector<double>(static_cast<size_t>(c.head_dim)),
             std::vector<double>(static_cast<size_t>(c.head_dim))};
  for (int64_t i = oldest; i <= p; ++i) {
    const double w = std::exp(score[static_cast<size_t>(i - oldest)] - top);
    sum += w;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      e.out[static_cast<size_t>(d)] += w * world.stored(true, i, kv_head, d);
      e.tolerance[static_cast<size_t>(d)] += w * std::abs(world.stored(true, i, kv_head, d));
    }
  }
  // Relative to sum of p |v|: the scores' error in numerator and denominator, an FMA a position, and per tile and chunk
  // the rescaling by an exp.
  const double n = static_cast<double>(p - oldest + 1);
  const double loss = 2 * score_error + (n + 2 * (n / 64 + 2) * 4 + 30) * kUlp;
  for (int64_t d = 0; d < c.head_dim; ++d) {
    e.out[static_cast<size_t>(d)] /= sum;
    e.tolerance[static_cast<size_t>(d)] *= loss / sum;
  }
  return e;
}

TEST(Attention, MatchesDoubles) {
  for (const Case& c : kCases) {
    const Data data(c);
    World world(c, kernels::best().isa, 1);
    const Floats out = world.prefill(data, {c.length});
    for (int64_t p = 0; p < c.length; p += p < 3 || p > c.length - 5 ? 1 : 1 + c.length / 16) {
      for (int head = 0; head < c.heads; ++head) {
        const Expected e = reference(c, world, data, p, head);
        for (int64_t d = 0; d < c.head_dim; ++d) {
          const size_t i = static_cast<size_t>(d);
          ASSERT_NEAR(out[static_cast<size_t>((p * c.heads + head) * c.head_dim + d)], e.out[i], e.tolerance[i])
              << c.name << ", position " << p << ", head " << head << ", element " << d;
        }
      }
    }
  }
}

TEST(Attention, InstructionSets_GiveTheSameBits) {
  for (const Case& c : kCases) {
    const Data data(c);
    const Floats expected = World(c, "portable", 1).prefill(data, {c.length});
    for (const char* const* isa = kernels::runnable(); *isa != nullptr; ++isa) {
      EXPECT_TRUE(same_bits(World(c, *isa, 1).prefill(data, {c.length}), expected)) << c.name << ", " << *isa;
    }
  }
}

TEST(Attention, ChunkedPrefillAndDecoding_GiveTheSameBits) {
  for (const Case& c : kCases) {
    const Data data(c);
    World world(c, kernels::best().isa, 2);
    const Floats expected = world.prefill(data, {c.length});
    for (const std::vector<int64_t>& sizes :
         {std::vector<int64_t>{1}, {64}, {37, 1, 1, 2, 5, 100}, {c.length - 3, 1}}) {
      World fresh(c, kernels::best().isa, 2);
      EXPECT_TRUE(same_bits(fresh.prefill(data, sizes), expected)) << c.name << ", " << sizes[0] << " first";
    }
  }
}

TEST(Attention, Threads_GiveTheSameBits) {
  for (const Case& c : kCases) {
    const Data data(c);
    const std::vector<int64_t> sizes = {c.length - 9, 1, 1, 3, 4};
    const Floats expected = World(c, kernels::best().isa, 1).prefill(data, sizes);
    for (const int threads : {2, 3, 4}) {
      EXPECT_TRUE(same_bits(World(c, kernels::best().isa, threads).prefill(data, sizes), expected))
          << c.name << ", " << threads << " threads";
    }
  }
}

TEST(Attention, RecycledPages_LeaveNoTrace) {
  for (const Case& c : kCases) {
    Data old(c, 2);
    for (float& e : old.v) e = INFINITY;  // what a page still holds from before must not even be multiplied by zero
    const Data data(c);
    World fresh(c, kernels::best().isa, 1);
    const Floats expected = fresh.prefill(data, {70, 1});
    World world(c, kernels::best().isa, 1);
    std::vector<kv::SeqId> ids;
    for (int i = 0; i < 3; ++i) {
      world.prefill(old, {c.length});
      ids.push_back(kv::SeqId{i});
    }
    for (const kv::SeqId id : ids) world.pool().release(id);
    EXPECT_TRUE(same_bits(world.prefill(data, {70, 1}), expected)) << c.name;
  }
}

// Three sequences of different lengths decode together: two of them forks of one prompt, the other one's rows behind
// theirs.
TEST(Attention, Batches_GiveTheSameBitsAsAlone) {
  for (Case c : kCases) {
    c.length = 231;
    const Data data(c);
    c.length = 200;
    Floats alone = World(c, kernels::best().isa, 1).prefill(data, {c.length});
    alone.resize(static_cast<size_t>(c.length * c.heads * c.head_dim));
    const auto ours = [&](const Floats& out) {
      return Floats(out.begin(), out.begin() + static_cast<int64_t>(alone.size()));
    };
    World world(c, kernels::best().isa, 2);
    Floats out(data.q.size(), -1);
    const kv::SeqId a = world.pool().create_sequence();
    const kv::SeqId other = world.pool().create_sequence();
    world.step(data,
               {{.seq = a, .first = 0, .count = 90, .pos = 0}, {.seq = other, .first = 200, .count = 30, .pos = 0}},
               out);
    const kv::SeqId b = world.pool().fork(a);
    world.step(data,
               {{.seq = b, .first = 90, .count = 110, .pos = 90}, {.seq = other, .first = 230, .count = 1, .pos = 30}},
               out);
    EXPECT_TRUE(same_bits(ours(out), alone)) << c.name;
    std::fill(out.begin() + 90 * c.heads * c.head_dim, out.end(), -1.0f);
    for (int64_t pos = 90; pos < 200; ++pos) {
      world.step(data, {{.seq = a, .first = pos, .count = 1, .pos = pos}}, out);
    }
    EXPECT_TRUE(same_bits(ours(out), alone)) << c.name << ", the fork's parent";
  }
}

TEST(Attention, Q8Storage_IsWithinHalfAStep) {
  const Case c{.name = "q8", .head_dim = 80, .type = kv::KvType::kQ8_0};
  const Data data(c);
  World world(c, kernels::best().isa, 1);
  world.prefill(data, {c.length});
  for (int64_t pos = 0; pos < c.length; ++pos) {
    for (int64_t i = 0; i < c.kv_heads * c.head_dim; ++i) {
      const int64_t d = i % c.head_dim;
      const float* row = data.k.data() + pos * c.kv_heads * c.head_dim + i - d;
      float top = 0;
      for (int64_t e = d / 32 * 32; e < std::min<int64_t>(c.head_dim, d / 32 * 32 + 32); ++e) {
        top = std::max(top, std::abs(row[e]));
      }
      // Half a step, and what rounding the scale to a half (2^-11) moves the largest.
      EXPECT_NEAR(world.stored(false, pos, static_cast<int>(i / c.head_dim), d), row[d],
                  top * (0.5 / 127 * 1.001 + 0x1p-11));
    }
  }
}

}  // namespace
}  // namespace stoke::model
