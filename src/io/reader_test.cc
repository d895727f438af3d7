// The conformance suite: what every backend must do, on buffered and on direct files.
#include "io/reader.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "io/sim_reader.h"
#include "io/thread_reader.h"
#include "io/uring_reader.h"
#include "sys/memory.h"

namespace stoke::io {
namespace {

constexpr uint64_t kFileBytes = (1 << 20) + 1000;  // ends within a block
constexpr uint32_t kBlock = 4096;

enum class Kind { kUring, kThreads, kSim };
struct Param {
  Kind kind;
  bool direct;
};

std::string param_name(const testing::TestParamInfo<Param>& info) {
  const char* kinds[] = {"uring", "threads", "sim"};
  return std::string(kinds[static_cast<int>(info.param.kind)]) + (info.param.direct ? "_direct" : "_buffered");
}

class ReaderTest : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    // In the build's folder, not in /tmp: that is often a tmpfs, which refuses direct reads.
    std::string pattern = (std::filesystem::current_path() / "build" / "reader_test_XXXXXX").string();
    if (!std::filesystem::exists("build")) pattern = testing::TempDir() + "reader_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::mt19937_64 random(7);
    content_.resize(kFileBytes);
    for (std::byte& byte : content_) byte = static_cast<std::byte>(random());
    path_ = folder_ + "/data";
    Result<sys::File> written = sys::File::create(path_);
    ASSERT_TRUE(written.ok() && written->pwrite_full(content_.data(), kFileBytes, 0).ok() && written->sync().ok());
    Result<sys::File> opened = GetParam().direct ? sys::File::open_direct(path_) : sys::File::open_read(path_);
    ASSERT_TRUE(opened.ok());
    file_ = std::move(opened).value();
    if (GetParam().direct && !file_.direct()) GTEST_SKIP() << file_.why_not_direct();
    Result<sys::Memory> memory = sys::Memory::map(size_t{8} << 20);
    ASSERT_TRUE(memory.ok());
    memory_ = std::move(memory).value();
    reader_ = open(8);
    if (reader_ == nullptr) GTEST_SKIP() << "io_uring is refused here";
  }
  void TearDown() override {
    reader_.reset();
    std::filesystem::remove_all(folder_);
  }

  template <typename T>
  static std::unique_ptr<Reader> opened(Result<std::unique_ptr<T>> reader) {
    return reader.ok() ? std::unique_ptr<Reader>(std::move(reader).value()) : nullptr;
  }
  std::unique_ptr<Reader> open(int depth) {
    if (GetParam().kind == Kind::kUring) return opened(UringReader::open(depth));
    if (GetParam().kind == Kind::kThreads) return opened(ThreadReader::open(depth));
    const SimOptions options = {.depth = depth, .torn = 0.2, .again = 0.1};
    return std::make_unique<SimReader>(options, sim_file_data(), clock_);
  }

  Read read_of(uint64_t offset, uint32_t bytes, uint64_t tag) const {
    return {&file_, offset, bytes, bytes, memory_.data() + tag * (1 << 20) % memory_.size(), tag};
  }
  bool holds(const Read& read, uint32_t bytes) const {
    return std::memcmp(read.dst, content_.data() + read.offset, bytes) == 0;
  }
  Done one(const Read& read) {
    reader_->push(read);
    Done done;
    EXPECT_EQ(reader_->wait({&done, 1}), 1U);
    EXPECT_EQ(done.tag, read.tag);
    return done;
  }

  sys::ManualClock clock_;
  std::string folder_;
  std::string path_;
  std::vector<std::byte> content_;
  sys::File file_;
  sys::Memory memory_;
  std::unique_ptr<Reader> reader_;
};

TEST_P(ReaderTest, Wait_BringsWhatWasPushed) {
  const Read read = read_of(3 * kBlock, 5 * kBlock, 1);
  const Done done = one(read);
  EXPECT_EQ(done.error, 0);
  EXPECT_EQ(done.bytes, read.bytes);
  EXPECT_TRUE(holds(read, read.bytes));
  EXPECT_EQ(reader_->in_flight(), 0);
  EXPECT_EQ(reader_->counts().reads, 1U);
  EXPECT_EQ(reader_->counts().bytes, read.bytes);
  EXPECT_GE(reader_->counts().submits, 1U);
}

TEST_P(ReaderTest, NothingInFlight_NothingIsWaitedFor) {
  Done done;
  reader_->submit();
  EXPECT_EQ(reader_->poll({&done, 1}), 0U);
  EXPECT_EQ(reader_->wait({&done, 1}), 0U);
}

TEST_P(ReaderTest, FullDepth_EveryTagComesBackOnce) {
  std::vector<Read> reads;
  for (uint64_t tag = 0; tag < 8; ++tag) {
    reads.push_back(read_of(tag * 16 * kBlock, kBlock << (tag % 4), tag));
    reader_->push(reads.back());
  }
  EXPECT_EQ(reader_->in_flight(), 8);
  reader_->submit();
  std::set<uint64_t> tags;
  std::vector<Done> done(3);  // fewer than are in flight
  while (reader_->in_flight() > 0) {
    const size_t count = reader_->wait(done);
    ASSERT_GT(count, 0U);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_TRUE(tags.insert(done[i].tag).second);
      EXPECT_TRUE(holds(reads[done[i].tag], reads[done[i].tag].bytes));
    }
  }
  EXPECT_EQ(tags.size(), 8U);
}

TEST_P(ReaderTest, PushBeyondTheDepth_IsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (uint64_t tag = 0; tag < 8; ++tag) reader_->push(read_of(0, kBlock, tag));
  EXPECT_DEATH(reader_->push(read_of(0, kBlock, 8)), "CHECK failed");
}

TEST_P(ReaderTest, Poll_FindsWhatWasSubmittedWithoutWaiting) {
  const Read read = read_of(0, kBlock, 5);
  reader_->push(read);
  reader_->submit();
  Done done;
  while (reader_->poll({&done, 1}) == 0) {  // nor does anything else here call the system
  }
  EXPECT_EQ(done.tag, 5U);
  EXPECT_TRUE(holds(read, kBlock));
}

TEST_P(ReaderTest, EndOfFile_CutsWhatNeedNotCome) {
  constexpr uint64_t kLast = kFileBytes / kBlock * kBlock;
  constexpr auto kRest = static_cast<uint32_t>(kFileBytes - kLast);
  Read read = read_of(kLast, 2 * kBlock, 1);
  read.at_least = kRest;
  const Done done = one(read);
  EXPECT_EQ(done.error, 0);
  EXPECT_EQ(done.bytes, kRest);
  EXPECT_TRUE(holds(read, kRest));
}

TEST_P(ReaderTest, EndOfFile_BeforeWhatMustComeIsAnError) {
  constexpr uint64_t kLast = kFileBytes / kBlock * kBlock;
  Read read = read_of(kLast - kBlock, 4 * kBlock, 1);
  read.at_least = kBlock + 1001;
  const Done done = one(read);
  EXPECT_EQ(done.error, -1);
  EXPECT_EQ(done.bytes, kBlock + 1000);
  EXPECT_EQ(read_failure(read, done).message(),
            path_ + ": ends at offset 1049576, but 5097 bytes were to be read from 1044480; is the file complete?");
  EXPECT_EQ(one(read_of(kLast + 16 * kBlock, kBlock, 2)).error, -1);
}

TEST_P(ReaderTest, FailedRead_CarriesTheErrorAndTheRestGoesOn) {
  const sys::File closed;  // descriptor -1
  const Read bad = {&closed, 0, kBlock, kBlock, memory_.data(), 1};
  const Read good = read_of(0, kBlock, 2);
  reader_->push(bad);
  reader_->push(good);
  std::vector<Done> done(2);
  size_t count = 0;
  while (count < 2) count += reader_->wait(std::span(done).subspan(count));
  const size_t failed = done[0].tag == 1 ? 0 : 1;
  EXPECT_EQ(done[failed].error, EBADF);
  EXPECT_EQ(done[1 - failed].error, 0);
  EXPECT_TRUE(holds(good, kBlock));
  EXPECT_NE(read_failure(bad, done[failed]).message().find("cannot read 4096 bytes at offset 0: bad file descriptor"),
            std::string::npos);
}

TEST_P(ReaderTest, Destruction_WaitsForWhatIsInFlight) {
  for (int round = 0; round < 20; ++round) {
    reader_ = open(8);
    const auto pushed = static_cast<uint64_t>(round % 9);
    for (uint64_t tag = 0; tag < pushed; ++tag) reader_->push(read_of(0, 64 * kBlock, tag));
    if (round % 3 != 0) reader_->submit();
    reader_.reset();
    // Nobody writes there any more.
    std::memset(memory_.data(), 0, memory_.size());
    for (size_t at = 0; at < memory_.size(); at += 512) ASSERT_EQ(memory_.data()[at], std::byte{0});
  }
}

// Random sizes, places, batches and ways of taking; every byte is compared.
TEST_P(ReaderTest, RandomWorkload_BringsTheBytesOfTheFile) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (const int depth : {1, 3, 8}) {
    reader_ = open(depth);
    std::vector<Read> reads(static_cast<size_t>(depth));
    std::vector<Done> done(static_cast<size_t>(depth));
    std::vector<uint64_t> unused;
    for (uint64_t slot = 0; slot < reads.size(); ++slot) unused.push_back(slot);
    uint64_t started = 0, bytes = 0;
    while (started < 500 || reader_->in_flight() > 0) {
      for (uint64_t batch = random() % 4; batch > 0 && started < 500 && !unused.empty(); --batch, ++started) {
        const uint64_t unit = file_.direct() ? kBlock : 1;
        const uint64_t offset = random() % (kFileBytes / unit) * unit;
        const auto length = static_cast<uint32_t>((1 + random() % (random() % 2 ? 3 : (1 << 18) / unit)) * unit);
        Read& read = reads[unused.back()];
        read = read_of(offset, length, unused.back());
        read.at_least = static_cast<uint32_t>(std::min<uint64_t>(length, kFileBytes - offset));
        bytes += read.at_least;
        reader_->push(read);
        unused.pop_back();
      }
      if (random() % 2) reader_->submit();
      const std::span<Done> out = std::span(done).first(1 + random() % done.size());
      const size_t count = random() % 2 ? reader_->wait(out) : reader_->poll(out);
      for (const Done& ended : out.first(count)) {
        ASSERT_EQ(ended.error, 0);
        ASSERT_EQ(ended.bytes, reads[ended.tag].at_least);
        ASSERT_TRUE(holds(reads[ended.tag], ended.bytes)) << "offset " << reads[ended.tag].offset;
        unused.push_back(ended.tag);
      }
    }
    EXPECT_EQ(reader_->counts().reads, started);
    EXPECT_EQ(reader_->counts().bytes, bytes);
  }
}

TEST_P(ReaderTest, LittleLockableMemory_IsEnough) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &before), 0);
  const rlimit little = {std::min<rlim_t>(before.rlim_max, 64 << 10), before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &little), 0);
  reader_ = open(64);
  setrlimit(RLIMIT_MEMLOCK, &before);
  ASSERT_NE(reader_, nullptr);
  EXPECT_EQ(one(read_of(0, kBlock, 1)).error, 0);
}

INSTANTIATE_TEST_SUITE_P(All, ReaderTest,
                         testing::Values(Param{Kind::kUring, false}, Param{Kind::kUring, true},
                                         Param{Kind::kThreads, false}, Param{Kind::kThreads, true},
                                         Param{Kind::kSim, false}, Param{Kind::kSim, true}),
                         param_name);

TEST(OpenReader, Threads_AreTakenWhenAskedFor) {
  std::string why;
  ReaderOptions options;
  options.backend = ReaderOptions::Backend::kThreads;
  const Result<std::unique_ptr<Reader>> reader = open_reader(options, &why);
  ASSERT_TRUE(reader.ok());
  EXPECT_STREQ((*reader)->name(), "threads");
  EXPECT_EQ((*reader)->depth(), 32);
  EXPECT_EQ(why, "threads: asked for");
}

TEST(OpenReader, Auto_SaysWhatItTook) {
  std::string why;
  const Result<std::unique_ptr<Reader>> reader = open_reader({}, &why);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(why.substr(0, std::strlen((*reader)->name())), (*reader)->name());
  EXPECT_TRUE(open_reader({}, nullptr).ok());
}

}  // namespace
}  // namespace stoke::io
