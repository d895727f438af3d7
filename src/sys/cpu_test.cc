#include "sys/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "sys/proc_text.h"

namespace stoke::sys {
namespace {

// The kernel's own list is the oracle where it uses the same names.
TEST(Cpu, Features_AgreeWithTheKernel) {
  const std::string cpuinfo = read_text("/proc/cpuinfo").value_or("");
  const size_t flags = cpuinfo.find("\nflags");
  if (flags == std::string::npos) GTEST_SKIP() << "no flags line in /proc/cpuinfo";
  const std::string line = cpuinfo.substr(flags, cpuinfo.find('\n', flags + 1) - flags) + " ";
  for (const std::string& name : cpu_features()) {
    EXPECT_NE(line.find(" " + name + " "), std::string::npos) << name;
  }
}

TEST(Cpu, Topology_HasUs) {
  const Topology t = topology();
  EXPECT_FALSE(t.allowed.empty());
  EXPECT_GE(t.physical_cores, 1);
  EXPECT_LE(t.physical_cores, static_cast<int>(t.allowed.size()));
  EXPECT_FALSE(cpu_model().empty());
}

TEST(Cpu, DefaultThreads_IsCoresWithinTheQuota) {
  Topology t;
  t.physical_cores = 8;
  EXPECT_EQ(default_threads(t), 8);
  t.quota_cpus = 2.5;
  EXPECT_EQ(default_threads(t), 3);
  t.quota_cpus = 0.1;
  EXPECT_EQ(default_threads(t), 1);
  t.quota_cpus = 100;
  EXPECT_EQ(default_threads(t), 8);
}

TEST(ProcText, ParsesKernelFormats) {
  EXPECT_EQ(parse_cpu_list("0-3,8"), (std::vector<int>{0, 1, 2, 3, 8}));
  EXPECT_EQ(parse_cpu_list("5"), (std::vector<int>{5}));
  EXPECT_TRUE(parse_cpu_list("").empty());
  EXPECT_TRUE(parse_cpu_list("0-99999999").empty());
  EXPECT_EQ(find_number("MemFreeX: 1 kB\nMemFree:   7 kB\n", "MemFree"), 7U * 1024);
  EXPECT_EQ(find_number("active_file 12\n", "active_file"), 12U);
  EXPECT_FALSE(find_number("a: x", "a").has_value());
  EXPECT_FALSE(read_number("/no/such/file").has_value());
}

}  // namespace
}  // namespace stoke::sys
