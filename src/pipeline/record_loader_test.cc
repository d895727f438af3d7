// Loading many records from a simulated disk: all of those asked for and no others, once each, whatever order reads end
// in; damage is read again, and named where it stays.
#include "pipeline/record_loader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "io/sim_reader.h"
#include "pipeline/sparse_test_util.h"
#include "sys/clock.h"

namespace stoke::pipeline {
namespace {

constexpr StoreCase kCase{.name = "loader", .dim = 256, .neurons = 2000, .layers = 2};

class RecordLoaderTest : public testing::Test {
 protected:
  RecordLoaderTest() : store_(kCase, 5), file_(std::move(sys::File::open_read("/dev/null")).value()) {
    for (NeuronTable& t : store_.tables) t.file = &file_;
  }
  // Loads neurons of the second layer; the records that came, in the order of the neurons.
  Status load(const io::SimOptions& disk, const std::vector<int32_t>& neurons, uint32_t gap) {
    io::SimReader reader(disk, io::sim_image_data({store_.image.data(), store_.image.size()}), clock_);
    IoQueue queue(reader, clock_, 32);
    const NeuronTable& table = store_.tables[1];
    auto loader = RecordLoader::create(queue, gap, table.record_bytes());
    EXPECT_TRUE(loader.ok());
    came_.assign(static_cast<size_t>(kCase.neurons), 0);
    const Status status = loader->load(
        table, neurons,
        [&](int64_t neuron, const std::byte* record) {
          ++came_[static_cast<size_t>(neuron)];
          const std::byte* wanted = store_.image.data() + table.records.offset_of(neuron);
          EXPECT_EQ(std::memcmp(record, wanted, table.record_bytes()), 0) << neuron;
        },
        cancel_ ? &cancelled_ : nullptr);
    EXPECT_TRUE(queue.idle());
    reads_ = reader.counts();
    return status;
  }

  TestStore store_;
  sys::File file_;
  sys::ManualClock clock_;
  std::vector<int> came_;
  io::ReadCounts reads_;
  bool cancel_ = false;
  CancelFlag cancelled_ = true;
};

TEST_F(RecordLoaderTest, BringsWhatIsAskedOnce) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<int32_t> neurons;
    const uint32_t one_in = 1 + random() % 40;
    for (int32_t n = 0; n < kCase.neurons; ++n) {
      if (random() % one_in == 0) neurons.push_back(n);
    }
    io::SimOptions disk{.seed = seed, .depth = seed % 3 == 0 ? 1 : 32, .slow = 0.1, .torn = 0.1, .again = 0.1};
    if (seed % 2 == 0) disk.flip = 0.02;
    const Status status = load(disk, neurons, seed % 4 == 0 ? 0 : 4096);
    if (disk.flip == 0) {
      ASSERT_TRUE(status.ok()) << status.message();
    }
    if (!status.ok()) continue;  // the same read was hit twice
    for (int32_t n = 0; n < kCase.neurons; ++n) {
      EXPECT_EQ(came_[static_cast<size_t>(n)], std::count(neurons.begin(), neurons.end(), n)) << n;
    }
  }
}

TEST_F(RecordLoaderTest, AWholeLayerComesInLargeReads) {
  std::vector<int32_t> neurons(static_cast<size_t>(kCase.neurons));
  std::iota(neurons.begin(), neurons.end(), 0);
  ASSERT_TRUE(load({}, neurons, 0).ok());
  const uint64_t bytes = neurons.size() * store_.tables[1].record_bytes();
  EXPECT_LE(reads_.reads, bytes / (256 << 10) + 2);
  EXPECT_LE(reads_.bytes, bytes + bytes / 50);
}

TEST_F(RecordLoaderTest, NamesWhatStaysDamaged) {
  std::vector<uint32_t> wrong(store_.tables[1].checksums.begin(), store_.tables[1].checksums.end());
  wrong[77] ^= 1;
  store_.tables[1].checksums = wrong;
  const Status damaged = load({}, {3, 77, 500}, 0);
  EXPECT_EQ(damaged.code(), Code::kCorrupt);
  EXPECT_NE(damaged.message().find("layer 1, neuron 77"), std::string::npos) << damaged.message();
  const Status failed = load({.error = 1}, {3, 500}, 0);
  EXPECT_EQ(failed.code(), Code::kIo);
  const Status ended = load({.ends_at = 8192}, {1500}, 0);
  EXPECT_EQ(ended.code(), Code::kCorrupt);
}

TEST_F(RecordLoaderTest, StopsWhenCancelled) {
  cancel_ = true;
  EXPECT_EQ(load({}, {1, 2, 3}, 0).code(), Code::kCancelled);
}

}  // namespace
}  // namespace stoke::pipeline
