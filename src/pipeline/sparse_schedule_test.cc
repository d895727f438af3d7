// The sparse FFN from a simulated disk: whatever the order in which reads end, the cache, the hot share, the threads
// and the switches, the bits are those of all records in memory; faults give right bits or a clear error, never a hang.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <optional>

#include "io/sim_reader.h"
#include "pipeline/sparse_ffn.h"
#include "pipeline/sparse_test_util.h"
#include "sys/clock.h"

namespace stoke::pipeline {
namespace {

constexpr int64_t kMaxTokens = 12;

// What a seed decides.
struct Weather {
  int threads = 1;
  SparseOptions options;
  io::SimOptions disk;
  cache::PolicyKind policy = cache::PolicyKind::kLru;
  int64_t slots = 0;
  int64_t hot = 0;
  size_t queue = 64;
  bool neighbour = false;  // somebody else's background reads fill the queue
  bool rival = false;      // and urgent ones
};

Weather draw(const StoreCase& c, uint32_t seed) {
  std::mt19937 rng(seed);
  auto pick = [&](auto... values) {
    const std::array list = {values...};
    return list[rng() % list.size()];
  };
  Weather w;
  w.threads = pick(1, 1, 2, 2, 4);
  const int64_t all = c.neurons * c.experts * c.layers;
  w.slots = pick(int64_t{1}, int64_t{40}, all / 4, all);
  w.hot = pick(int64_t{0}, int64_t{1}, c.neurons / 3, int64_t{256}, c.neurons);
  w.hot = std::min(w.hot, c.neurons);
  w.policy = pick(cache::PolicyKind::kLru, cache::PolicyKind::kS3Fifo, cache::PolicyKind::kLfu);
  w.queue = static_cast<size_t>(pick(32, 64, 1000));
  w.options.max_tokens = kMaxTokens;
  w.options.fetch.gap_bytes = static_cast<uint32_t>(pick(0, 100, 400, 5000));
  w.options.fetch.read_bytes_max = static_cast<uint32_t>(pick(200, 1000, 32768));
  w.options.fetch.bounces = pick(1, 3, 64);
  w.options.fetch.transients = pick(256, 300, 512);
  w.options.fetch.use_cache = rng() % 8 != 0;
  w.options.whole_layers = rng() % 8 == 0;
  w.options.switches.synchronous_reads = rng() % 8 == 0;
  w.options.switches.stage_barriers = rng() % 8 == 0;
  w.options.ring_clusters = pick(4, 5, 8);
  w.neighbour = rng() % 6 == 0;
  w.rival = rng() % 10 == 0;
  w.disk.seed = seed;
  w.disk.depth = pick(1, 4, 32);
  if (w.rival) w.queue = 32, w.disk.depth = 32;  // each of ours waits for a queue full of its reads
  w.disk.jitter_ns = pick(0, 100'000, 5'000'000);
  w.disk.slow = pick(0.0, 0.1);
  return w;
}

// Another client of the queue that leaves no room in it: every read that ends is pushed again, `again` times in all.
class Neighbour final : public ReadClient {
 public:
  Neighbour(IoQueue& queue, IoQueue::Priority priority, int again) : queue_(queue), priority_(priority), again_(again) {
    memory_ = std::move(sys::Memory::map(4096)).value();
  }
  ~Neighbour() override {
    again_ = 0;
    while (out_ > 0) queue_.wait();
  }
  void push_all(const sys::File& file) {
    const io::Read read{.file = &file, .bytes = 4096, .at_least = 1, .dst = memory_.data()};
    while (queue_.push(*this, read, priority_)) ++out_;
  }
  void on_read(const io::Read& read, const io::Done&) override {
    if (again_-- <= 0 || !queue_.push(*this, read, priority_)) --out_;
  }

 private:
  IoQueue& queue_;
  IoQueue::Priority priority_;
  sys::Memory memory_;
  int again_;
  int out_ = 0;
};

// One FFN over a simulated disk.
class Rig {
 public:
  Rig(TestStore& store, const Weather& w, const sys::File& file)
      : store_(store),
        pool_(w.threads),
        multiplier_(kernels::best(), pool_, store.source, {.max_tokens = kMaxTokens}),
        reader_(w.disk, io::sim_image_data({store.image.data(), store.image.size()}), clock_),
        queue_(reader_, clock_, w.queue),
        neighbour_(queue_, IoQueue::Priority::kBackground, 1 << 30),
        rival_(queue_, IoQueue::Priority::kUrgent, 500),
        tables_(store.tables) {
    const size_t slot = tables_[0].record_bytes();
    arena_ = std::move(sys::Memory::map(slot * static_cast<size_t>(w.slots))).value();
    cache_.emplace(cache::CacheOptions{.units = store.shape.layers * store.shape.experts * store.shape.neurons,
                                       .slots = w.slots,
                                       .slot_bytes = slot,
                                       .arena = arena_.data(),
                                       .policy = w.policy});
    for (NeuronTable& t : tables_) hold_hot(t, w.hot);
    for (NeuronTable& t : tables_) t.file = &file;
    ffn_.emplace(SparseFfn::Parts{store.config, store.weights, multiplier_, tables_, &*cache_, &queue_}, w.options);
    if (w.neighbour) neighbour_.push_all(file);
    if (w.rival) rival_.push_all(file);
  }

  // All layers, each given the one before's output added to the stream; the sums of each come back.
  Status pass(Floats x, Floats* outs) {
    outs->clear();
    const auto tokens = static_cast<int64_t>(x.size()) / store_.shape.dim;
    for (int layer = 0; layer < store_.shape.layers; ++layer) {
      ffn_->prepare(layer);
      Floats out(x.size(), NAN);
      STOKE_TRY(ffn_->forward(layer, x.data(), tokens, out.data()));
      outs->insert(outs->end(), out.begin(), out.end());
      for (size_t i = 0; i < x.size(); ++i) x[i] = 0.5f * x[i] + out[i];
    }
    return ok_status();
  }
  Status check() const { return cache_->check(); }
  int leased() const {
    int leases = 0;
    for (int32_t s = 0; s < cache_->slots(); ++s) leases += cache_->leases({s});
    return leases;
  }
  SparseFfn& ffn() { return *ffn_; }
  io::SimReader& reader() { return reader_; }

 private:
  void hold_hot(NeuronTable& t, int64_t count) {
    hot_.emplace_back();
    for (int64_t e = 0; e < t.records.experts; ++e) {
      const std::byte* first = store_.image.data() + t.records.offset_of(e * t.expert_neurons());
      hot_.back().insert(hot_.back().end(), first, first + static_cast<size_t>(count) * t.record_bytes());
    }
    t.hot = hot_.back().data();
    t.hot_count = count;
  }

  TestStore& store_;
  sys::ManualClock clock_;
  sys::ThreadPool pool_;
  model::Multiplier multiplier_;
  io::SimReader reader_;
  IoQueue queue_;
  Neighbour neighbour_, rival_;
  std::vector<NeuronTable> tables_;
  std::vector<std::vector<std::byte>> hot_;
  sys::Memory arena_;
  std::optional<cache::UnitCache> cache_;
  std::optional<SparseFfn> ffn_;
};

const std::vector<StoreCase> kCases = {
    {.name = "split", .layers = 3},
    {.name = "bundle", .layout = RecordLayout::kBundle, .neurons = 520, .layers = 2},
    {.name = "codes", .encoding = DownEncoding::kCodes, .neurons = 544, .layers = 2},
    {.name = "all_fire", .neurons = 600, .layers = 2, .fires = 1.0},
    {.name = "experts", .neurons = 288, .experts = 4, .used = 2, .layers = 2},
};

class SparseScheduleTest : public testing::TestWithParam<StoreCase> {};

// The store as a file, so that reads are as aligned as this file system wants them; the bytes come from the simulator.
sys::File store_file(const TestStore& store, const char* name) {
  const std::string path = testing::TempDir() + "/sparse_" + name + "_" + std::to_string(getpid());
  EXPECT_TRUE(
      sys::write_file_atomic(path, {reinterpret_cast<const char*>(store.image.data()), store.image.size()}).ok());
  sys::File file = std::move(sys::File::open_direct(path)).value();
  std::remove(path.c_str());
  return file;
}

// Passes of one, few and many tokens, and the bits they must give.
struct Work {
  std::vector<Floats> inputs, wants;
  explicit Work(TestStore& store) {
    Weather in_memory{.options = {.max_tokens = kMaxTokens}, .slots = 1, .hot = store.shape.neurons};
    sys::File no_file;
    Rig rig(store, in_memory, no_file);
    for (const int64_t tokens : {12, 1, 1, 3, 1, 7, 2, 1}) {
      inputs.push_back(store.tokens(tokens));
      wants.emplace_back();
      EXPECT_TRUE(rig.pass(inputs.back(), &wants.back()).ok());
      float least = 0, most = 0;
      for (const float v : wants.back()) least = std::min(least, v), most = std::max(most, v);
      EXPECT_LT(least, -0.001f);
      EXPECT_GT(most, 0.001f);
    }
  }
};

bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(SparseScheduleTest, AnySchedule_GivesTheBitsOfMemory) {
  TestStore store(GetParam(), 21);
  const Work work(store);
  const sys::File buffered, direct = store_file(store, GetParam().name);
  for (uint32_t seed = 1; seed <= 250; ++seed) {
    const Weather weather = draw(GetParam(), seed);
    store.source.rows_max = seed % 3 == 0 ? 100 : 1 << 30;
    Rig rig(store, weather, seed % 2 == 0 ? direct : buffered);
    for (size_t i = 0; i < work.inputs.size(); ++i) {
      Floats outs;
      const Status status = rig.pass(work.inputs[i], &outs);
      ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.message();
      ASSERT_TRUE(same_bits(outs, work.wants[i])) << "seed " << seed << " pass " << i;
      ASSERT_EQ(store.source.leases, 0) << "seed " << seed;
    }
    ASSERT_EQ(rig.leased(), 0) << "seed " << seed;
    ASSERT_TRUE(rig.check().ok()) << "seed " << seed << ": " << rig.check().message();
  }
}

TEST_P(SparseScheduleTest, Faults_GiveRightBitsOrAClearError) {
  TestStore store(GetParam(), 22);
  const Work work(store);
  const sys::File buffered, direct = store_file(store, GetParam().name);
  uint64_t failed = 0, right = 0, reread = 0;
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    Weather weather = draw(GetParam(), seed);
    weather.disk.error = seed % 3 == 0 ? 0.02 : 0;
    weather.disk.flip = seed % 3 == 1 ? 0.03 : 0;
    weather.disk.torn = 0.1;
    weather.disk.again = 0.1;
    if (seed % 10 == 5) weather.disk.ends_at = store.image.size() / 2;
    Rig rig(store, weather, seed % 2 == 0 ? direct : buffered);
    for (size_t i = 0; i < work.inputs.size(); ++i) {
      store.source.fail_after = seed % 7 == 0 && i % 3 == 1 ? static_cast<int64_t>(seed % 5) : -1;
      Floats outs;
      const Status status = rig.pass(work.inputs[i], &outs);
      store.source.fail_after = -1;
      ASSERT_EQ(store.source.leases, 0) << "seed " << seed;
      if (status.ok()) {
        ++right;
        ASSERT_TRUE(same_bits(outs, work.wants[i])) << "seed " << seed << " pass " << i;
      } else {
        ++failed;
        ASSERT_EQ(rig.leased(), 0) << "seed " << seed;
        ASSERT_TRUE(rig.check().ok()) << "seed " << seed << ": " << rig.check().message();
        if (status.code() == Code::kCancelled) continue;
        ASSERT_TRUE(status.code() == Code::kIo || status.code() == Code::kCorrupt) << status.message();
        ASSERT_NE(status.message().find(", neuron "), std::string::npos) << status.message();
      }
    }
    reread += rig.ffn().counts().fetch.reread;
  }
  EXPECT_GT(right, 100u);
  EXPECT_GT(failed, 10u);
  if (GetParam().layout == RecordLayout::kSplit) {
    EXPECT_GT(reread, 10u);
  }
}

TEST(SparseCache, Prompt_WarmsTheCacheForDecoding) {
  const StoreCase shape{.name = "split", .layers = 2};
  TestStore store(shape, 23);
  Weather weather{.options = {.max_tokens = kMaxTokens}, .policy = cache::PolicyKind::kLfu, .slots = 1400};
  sys::File file;
  Rig rig(store, weather, file);
  Floats x = store.tokens(kMaxTokens), outs;
  ASSERT_TRUE(rig.pass(x, &outs).ok());
  x.resize(static_cast<size_t>(shape.dim));
  ASSERT_TRUE(rig.pass(x, &outs).ok());
  const FetchCounts counts = rig.ffn().counts().fetch;
  EXPECT_GT(counts.lookups, 50u);
  EXPECT_EQ(counts.cache_hits, counts.lookups);
  EXPECT_EQ(counts.reads, 0u);
}

INSTANTIATE_TEST_SUITE_P(Cases, SparseScheduleTest, testing::ValuesIn(kCases),
                         [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace stoke::pipeline
