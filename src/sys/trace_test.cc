// The trace file: valid JSON whatever the names, events in their order, and what a full ring has lost.
#include "sys/trace.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "sys/thread_pool.h"

namespace stoke::sys {
namespace {

using Json = nlohmann::json;

class TraceTest : public testing::Test {
 protected:
  ~TraceTest() override { std::remove(path_.c_str()); }
  Json parsed() const {
    const auto text = read_file(path_);
    EXPECT_TRUE(text.ok());
    return Json::parse(*text);
  }
  static Json named(const Json& trace, const std::string& phase) {
    Json found = Json::array();
    for (const Json& event : trace["traceEvents"]) {
      if (event["ph"] == phase) found.push_back(event);
    }
    return found;
  }
  std::string path_ = testing::TempDir() + "/trace_" + std::to_string(getpid()) + ".json";
};

TEST_F(TraceTest, SpansAndReadsAreWritten) {
  {
    auto trace = Trace::open({.path = path_, .workers = 2, .events = 8});
    ASSERT_TRUE(trace.ok()) << trace.status().message();
    const auto file = File::open_read("/proc/self/exe");
    ASSERT_TRUE(file.ok());
    (*trace)->set_process("a \"name\"\\ with\nbreaks");
    (*trace)->name_file(*file);
    {
      const TraceSpan outer(trace->get(), 0, TraceKind::kAttention, 3);
      const TraceSpan inner(trace->get(), 0, TraceKind::kWork);
      const TraceSpan other(trace->get(), 1, TraceKind::kCluster, 7, 11);
    }
    (*trace)->add_read(&*file, 4096, 512, (*trace)->now_ns());
    (*trace)->add_read(nullptr, 0, 100, (*trace)->now_ns());
  }  // closing writes
  const Json trace = parsed();
  const Json spans = named(trace, "X");
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[0]["name"], "work");
  EXPECT_EQ(spans[1]["name"], "attention");
  EXPECT_EQ(spans[1]["args"]["layer"], 3);
  EXPECT_LE(spans[1]["ts"], spans[0]["ts"]);
  EXPECT_EQ(spans[2]["tid"], 1);
  EXPECT_EQ(spans[2]["args"]["active"], 11);
  const Json begins = named(trace, "b");
  ASSERT_EQ(begins.size(), 2U);
  EXPECT_EQ(named(trace, "e").size(), 2U);
  EXPECT_EQ(begins[0]["args"]["bytes"], 512);
  EXPECT_EQ(begins[0]["args"]["offset"], 4096);
  EXPECT_EQ(begins[0]["args"]["file"], "/proc/self/exe");
  EXPECT_EQ(named(trace, "M").size(), 4U);
  EXPECT_EQ(trace["otherData"]["dropped_events"]["worker 0"], 0);
}

TEST_F(TraceTest, FullRingKeepsTheLatestAndCountsTheRest) {
  auto trace = Trace::open({.path = path_, .workers = 1, .events = 4});
  ASSERT_TRUE(trace.ok());
  for (int64_t i = 0; i < 10; ++i) {
    (*trace)->add(0, {.start_ns = (*trace)->now_ns(), .end_ns = (*trace)->now_ns(), .a = i, .kind = TraceKind::kFfn});
  }
  ASSERT_TRUE((*trace)->write().ok());
  const Json written = parsed();
  const Json spans = named(written, "X");
  ASSERT_EQ(spans.size(), 4U);
  EXPECT_EQ(spans[0]["args"]["layer"], 6);
  EXPECT_EQ(spans[3]["args"]["layer"], 9);
  EXPECT_EQ(written["otherData"]["dropped_events"]["worker 0"], 6);
}

TEST_F(TraceTest, PoolRecordsEveryWorkersPart) {
  constexpr int kRuns = 50;
  auto trace = Trace::open({.path = path_, .workers = 3, .events = 1000});
  ASSERT_TRUE(trace.ok());
  {
    ThreadPool pool(3);
    pool.set_trace(trace->get());
    auto nothing = [](int) {};
    for (int i = 0; i < kRuns; ++i) pool.run(nothing);
    ASSERT_TRUE((*trace)->write().ok());  // between two runs, with the threads alive
    pool.set_trace(nullptr);
    pool.run(nothing);
  }
  int parts[3] = {};
  for (const Json& span : named(parsed(), "X")) parts[span["tid"].get<int>()] += span["name"] == "work" ? 1 : 0;
  for (const int part : parts) EXPECT_EQ(part, kRuns);
}

TEST_F(TraceTest, UnwritablePathIsRefusedAtOnce) {
  const auto trace = Trace::open({.path = "/proc/no/such/trace.json"});
  ASSERT_FALSE(trace.ok());
  EXPECT_NE(trace.status().message().find("/proc/no/such/trace.json"), std::string::npos);
}

TEST_F(TraceTest, FullDiskIsReported) {
  auto trace = Trace::open({.path = "/dev/full"});
  if (!trace.ok()) GTEST_SKIP() << trace.status().message();
  EXPECT_FALSE((*trace)->write().ok());
}

}  // namespace
}  // namespace stoke::sys
