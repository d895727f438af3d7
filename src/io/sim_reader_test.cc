#include "io/sim_reader.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>
#include <vector>

namespace stoke::io {
namespace {

constexpr uint64_t kImageBytes = 1 << 20;
constexpr uint32_t kReadBytes = 4608;

std::vector<std::byte> make_image() {
  std::vector<std::byte> image(kImageBytes);
  std::mt19937_64 random(3);
  for (std::byte& byte : image) byte = static_cast<std::byte>(random());
  return image;
}

struct Ended {
  Done done;
  int64_t at_ns;
  bool right;  // the bytes are those of the image
  bool operator==(const Ended& o) const {
    return done.tag == o.done.tag && done.error == o.done.error && done.bytes == o.done.bytes && at_ns == o.at_ns &&
           right == o.right;
  }
};

struct Played {
  std::vector<Ended> ended;
  SimFaults faults;
};

// `count` reads at random places, as many in flight as may be.
Played play(const SimOptions& options, uint64_t count) {
  const std::vector<std::byte> image = make_image();
  sys::ManualClock clock;
  SimReader reader(options, sim_image_data(image), clock);
  std::mt19937_64 random(11);
  std::vector<std::vector<std::byte>> buffers(count, std::vector<std::byte>(kReadBytes));
  std::vector<uint64_t> offsets(count);
  Played played;
  std::vector<Done> done(4);
  for (uint64_t next = 0; next < count || reader.in_flight() > 0;) {
    for (; next < count && reader.in_flight() < reader.depth(); ++next) {
      offsets[next] = random() % (kImageBytes - kReadBytes);
      reader.push({nullptr, offsets[next], kReadBytes, kReadBytes, buffers[next].data(), next});
    }
    const size_t ended = random() % 2 ? reader.wait(done) : (reader.submit(), reader.poll(done));
    for (const Done& one : std::span(done).first(ended)) {
      const bool right = std::memcmp(buffers[one.tag].data(), image.data() + offsets[one.tag], kReadBytes) == 0;
      played.ended.push_back({one, clock.now_ns(), right});
    }
  }
  played.faults = reader.faults();
  return played;
}

TEST(SimReader, SameSeed_ReplaysEverything) {
  const SimOptions options = {
      .seed = 42, .slow = 0.1, .torn = 0.2, .again = 0.1, .error = 0.05, .flip = 0.05, .ends_at = kImageBytes - 50'000};
  const Played first = play(options, 500);
  EXPECT_EQ(first.ended, play(options, 500).ended);
  SimOptions other = options;
  other.seed = 43;
  EXPECT_NE(first.ended, play(other, 500).ended);
}

TEST(SimReader, Reads_EndOutOfOrderAndAtTheDisksRate) {
  const Played played = play({.jitter_ns = 400'000, .bytes_per_s = 1e9}, 1000);
  uint64_t overtaken = 0;
  for (size_t i = 1; i < played.ended.size(); ++i) {
    EXPECT_TRUE(played.ended[i].right);
    overtaken += played.ended[i].done.tag < played.ended[i - 1].done.tag;
  }
  EXPECT_GT(overtaken, 100U);
  EXPECT_GE(static_cast<double>(played.ended.back().at_ns), 1000.0 * kReadBytes);
}

TEST(SimReader, TornAndRefusedReads_AreContinued) {
  const Played played = play({.torn = 0.5, .again = 0.3}, 1000);
  EXPECT_GT(played.faults.torn, 300U);
  EXPECT_GT(played.faults.again, 200U);
  for (const Ended& ended : played.ended) {
    EXPECT_EQ(ended.done.error, 0);
    EXPECT_TRUE(ended.right);
  }
}

TEST(SimReader, Errors_AreDelivered) {
  const Played played = play({.error = 0.1}, 1000);
  uint64_t failed = 0;
  for (const Ended& ended : played.ended) {
    failed += ended.done.error == EIO;
    EXPECT_EQ(ended.done.error == 0, ended.right);
  }
  EXPECT_EQ(failed, played.faults.errors);
  EXPECT_GT(failed, 50U);
}

TEST(SimReader, FlippedBits_ComeWithoutAnError) {
  const Played played = play({.flip = 0.1}, 1000);
  uint64_t wrong = 0;
  for (const Ended& ended : played.ended) {
    EXPECT_EQ(ended.done.error, 0);
    wrong += !ended.right;
  }
  EXPECT_EQ(wrong, played.faults.flips);
  EXPECT_GT(wrong, 50U);
}

TEST(SimReader, CutFile_EndsReadsBehindItsEnd) {
  const Played played = play({.ends_at = kImageBytes / 2}, 1000);
  uint64_t cut = 0;
  for (const Ended& ended : played.ended) cut += ended.done.error == -1;
  EXPECT_GT(cut, 400U);
  EXPECT_LT(cut, 600U);
}

TEST(SimReader, SlowDisk_TakesLonger) {
  const int64_t usual = play({}, 500).ended.back().at_ns;
  EXPECT_GT(play({.slow = 1}, 500).ended.back().at_ns, 3 * usual);
}

TEST(SimReader, Destination_HoldsJunkUntilTheEnd) {
  const std::vector<std::byte> image(8192, std::byte{1});
  sys::ManualClock clock;
  SimReader reader({}, sim_image_data(image), clock);
  std::vector<std::byte> dst(4096, std::byte{1});
  reader.push({nullptr, 0, 4096, 4096, dst.data(), 0});
  reader.submit();
  EXPECT_NE(dst[0], std::byte{1});
  Done done;
  EXPECT_EQ(reader.wait({&done, 1}), 1U);
  EXPECT_EQ(dst[0], std::byte{1});
}

TEST(SimReader, SystemClock_EndsReadsInRealTime) {
  const std::vector<std::byte> image(8192, std::byte{1});
  const sys::SystemClock clock;
  SimReader reader({.latency_ns = 2'000'000, .jitter_ns = 0}, sim_image_data(image),
                   static_cast<const sys::Clock&>(clock));
  std::vector<std::byte> dst(4096);
  const sys::Stopwatch watch(clock);
  reader.push({nullptr, 0, 4096, 4096, dst.data(), 0});
  Done done;
  EXPECT_EQ(reader.wait({&done, 1}), 1U);
  EXPECT_GE(watch.seconds(), 0.002);
}

}  // namespace
}  // namespace stoke::io
