#include "sys/thread_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace stoke::sys {
namespace {

class ThreadPoolSizes : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolSizes, testing::Values(1, 2, 3, 4, 8));

TEST_P(ThreadPoolSizes, Run_CallsEveryWorkerOnce) {
  ThreadPool pool(GetParam());
  ASSERT_EQ(pool.size(), GetParam());
  std::vector<int> calls(static_cast<size_t>(pool.size()), 0);  // plain: each worker writes its own
  auto work = [&](int worker) { ++calls[static_cast<size_t>(worker)]; };
  for (int round = 1; round <= 300; ++round) {
    pool.run(work);
    for (int count : calls) ASSERT_EQ(count, round);
  }
}

TEST_P(ThreadPoolSizes, ParallelFor_CoversEveryItemOnce) {
  ThreadPool pool(GetParam());
  for (int64_t n : {0, 1, 7, 64, 1000}) {
    for (int64_t grain : {1, 3, 64, 5000}) {
      std::vector<int> seen(static_cast<size_t>(n), 0);
      pool.parallel_for(n, grain, [&](int64_t begin, int64_t end, int worker) {
        EXPECT_LT(worker, pool.size());
        EXPECT_LE(end - begin, pool.size() == 1 || n <= grain ? n : grain);
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (int count : seen) ASSERT_EQ(count, 1) << "n " << n << " grain " << grain;
    }
  }
}

// What the caller wrote before a run is seen by workers, what they wrote is seen after it, without atomics (TSAN
// checks).
TEST_P(ThreadPoolSizes, Run_OrdersMemoryBothWays) {
  ThreadPool pool(GetParam());
  int input = 0;
  std::vector<int> output(static_cast<size_t>(pool.size()), 0);
  auto work = [&](int worker) { output[static_cast<size_t>(worker)] = input + worker; };
  for (input = 0; input < 500; ++input) {
    pool.run(work);
    for (int w = 0; w < pool.size(); ++w) ASSERT_EQ(output[static_cast<size_t>(w)], input + w);
  }
}

// Pauses longer than the spin put workers to sleep; slow workers put the caller to sleep. Neither may lose a wake-up.
TEST_P(ThreadPoolSizes, Run_WakesSleepersOnBothSides) {
  ThreadPool pool(GetParam());
  std::atomic<int> calls{0};
  auto slow = [&](int worker) {
    if (worker != 0) usleep(500);
    ++calls;
  };
  for (int round = 1; round <= 20; ++round) {
    usleep(500);
    pool.run(slow);
    ASSERT_EQ(calls.load(), round * pool.size());
  }
}

TEST(ThreadPool, IdlePool_UsesNoProcessorTime) {
  ThreadPool pool(4);
  auto nothing = [](int) {};
  pool.run(nothing);
  usleep(20000);
  const clock_t before = clock();
  usleep(100000);
  EXPECT_LT(clock() - before, CLOCKS_PER_SEC / 50);
}

// Twice as many threads as cores: must stay within scheduling costs, not spin out whole time slices.
TEST(ThreadPool, Oversubscribed_StaysUsable) {
  ThreadPool pool(2 * static_cast<int>(std::thread::hardware_concurrency()));
  auto nothing = [](int) {};
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 500; ++i) pool.run(nothing);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 5.0);
}

}  // namespace
}  // namespace stoke::sys
