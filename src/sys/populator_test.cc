#include "sys/populator.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <thread>
#include <vector>

namespace stoke::sys {
namespace {

size_t resident(const Memory& memory) {
  std::vector<unsigned char> pages(memory.size() / page_size());
  if (mincore(memory.data(), memory.size(), pages.data()) != 0) return 0;
  size_t count = 0;
  for (const unsigned char page : pages) count += page & 1;
  return count * page_size();
}

TEST(Populator, FaultsInWhatItIsGivenAndNoMore) {
  auto first = Memory::map(size_t{8} << 20);
  auto second = Memory::map(size_t{32} << 20);
  ASSERT_TRUE(first.ok() && second.ok());
  Memory probe = std::move(Memory::map(4096)).value();
  probe.populate(0, 4096);
  if (resident(probe) == 0) GTEST_SKIP() << "this kernel does not populate on request";
  Populator populator;
  populator.start({{&*first, first->size()}, {&*second, size_t{16} << 20}});
  for (int i = 0; i < 2000 && resident(*second) < size_t{16} << 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  populator.stop();
  EXPECT_EQ(resident(*first), first->size());
  EXPECT_EQ(resident(*second), size_t{16} << 20);
}

TEST(Populator, NothingComesBackAfterStop) {
  auto memory = Memory::map(size_t{64} << 20);
  ASSERT_TRUE(memory.ok());
  Populator populator;
  for (int i = 0; i < 10; ++i) {
    populator.start({{&*memory, memory->size()}});
    populator.stop();
    memory->discard(0, memory->size());
    EXPECT_EQ(resident(*memory), 0U);
  }
  populator.start({{&*memory, memory->size()}});  // the destructor stops it
}

}  // namespace
}  // namespace stoke::sys
