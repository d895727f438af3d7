#include "sys/memory.h"

#include <gtest/gtest.h>

#include <cstring>

namespace stoke::sys {
namespace {

TEST(Memory, Map_IsZeroedAlignedAndMovable) {
  Result<Memory> mapped = Memory::map((size_t{5} << 20) + 1);
  ASSERT_TRUE(mapped.ok());
  Memory memory = std::move(*mapped);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % (size_t{2} << 20), 0U);
  EXPECT_GE(memory.size(), (size_t{5} << 20) + 1);
  EXPECT_EQ(memory.data()[memory.size() - 1], std::byte{0});
  memory.populate(123, 4 << 20);
  std::memset(memory.data(), 7, memory.size());
  memory.discard(0, 1 << 20);
  EXPECT_EQ(memory.data()[5], std::byte{0});
  EXPECT_EQ(memory.data()[2 << 20], std::byte{7});
}

TEST(Memory, Map_RefusesTheImpossible) {
  const Result<Memory> mapped = Memory::map(size_t{1} << 60);
  ASSERT_FALSE(mapped.ok());
  EXPECT_EQ(mapped.status().code(), Code::kNoMemory);
}

TEST(Memory, ProcessMemory_SeesWhatWeTouch) {
  const uint64_t before = process_memory().anonymous;
  Result<Memory> memory = Memory::map(size_t{32} << 20);
  ASSERT_TRUE(memory.ok());
  std::memset(memory->data(), 1, memory->size());
  const ProcessMemory after = process_memory();
  EXPECT_GE(after.anonymous, before + (uint64_t{30} << 20));
  EXPECT_GE(after.rss_peak, after.rss);
}

TEST(Memory, MachineMemory_IsPlausible) {
  const MachineMemory machine = machine_memory();
  EXPECT_GT(machine.total, uint64_t{64} << 20);
  EXPECT_LE(machine.available, machine.total);
}

}  // namespace
}  // namespace stoke::sys
