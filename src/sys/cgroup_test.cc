#include "sys/cgroup.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace stoke::sys {
namespace {

namespace fs = std::filesystem;

// A folder that imitates /proc and /sys/fs/cgroup.
class CgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "cgroup_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    800 kB\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void put(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void v2_at(const std::string& group) {
    put("/proc/self/cgroup", "0::" + group + "\n");
    put("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
  }

  std::string root_;
};

TEST_F(CgroupTest, NoCgroups_IsTheMachine) {
  const MemoryLimit limit = memory_limit(root_);
  EXPECT_EQ(limit.bytes, 1000U * 1024);
  EXPECT_EQ(limit.available, 800U * 1024);
  EXPECT_FALSE(limit.from_cgroup);
  EXPECT_FALSE(cpu_quota(root_).has_value());
}

TEST_F(CgroupTest, V2_TheTightestLevelLimits) {
  v2_at("/slice/leaf");
  put("/sys/fs/cgroup/slice/leaf/memory.max", "max\n");
  put("/sys/fs/cgroup/slice/memory.max", "409600\n");
  put("/sys/fs/cgroup/slice/memory.current", "300000\n");
  put("/sys/fs/cgroup/slice/memory.stat", "anon 1\nactive_file 60000\ninactive_file 40000\n");
  const MemoryLimit limit = memory_limit(root_);
  EXPECT_EQ(limit.bytes, 409600U);
  EXPECT_EQ(limit.available, 409600U - 200000U);
  EXPECT_TRUE(limit.from_cgroup);
  EXPECT_EQ(limit.how,
            "cgroup v2 limit 409600 bytes at /sys/fs/cgroup/slice; available: what is left of the limit at "
            "/sys/fs/cgroup/slice");
}

TEST_F(CgroupTest, V2_MemAvailableMayBeLess) {
  v2_at("/a");
  put("/sys/fs/cgroup/a/memory.max", "1000000\n");
  put("/sys/fs/cgroup/a/memory.current", "0\n");
  const MemoryLimit limit = memory_limit(root_);
  EXPECT_EQ(limit.bytes, 1000000U);
  EXPECT_EQ(limit.available, 800U * 1024);
}

TEST_F(CgroupTest, V1_UsesTheMemoryHierarchy) {
  put("/proc/self/cgroup", "9:cpu,cpuacct:/c\n4:memory:/m\n0::/\n");
  put("/proc/self/mountinfo",
      "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "41 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "500000\n");
  put("/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "450000\n");
  put("/sys/fs/cgroup/memory/m/memory.stat", "cache 9\ntotal_active_file 0\ntotal_inactive_file 50000\n");
  put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
  put("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
  const MemoryLimit limit = memory_limit(root_);
  EXPECT_EQ(limit.bytes, 500000U);
  EXPECT_EQ(limit.available, 100000U);
  ASSERT_TRUE(cpu_quota(root_).has_value());
  EXPECT_DOUBLE_EQ(cpu_quota(root_)->cpus, 1.5);
}

// A container without its own cgroup namespace sees its group as the root of the mount.
TEST_F(CgroupTest, Container_PathAboveTheMountIsCutOff) {
  put("/proc/self/cgroup", "0::/docker/abc\n");
  put("/proc/self/mountinfo", "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  put("/sys/fs/cgroup/memory.max", "123456\n");
  put("/sys/fs/cgroup/memory.current", "23456\n");
  put("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  EXPECT_EQ(memory_limit(root_).available, 100000U);
  EXPECT_DOUBLE_EQ(cpu_quota(root_)->cpus, 0.5);
}

TEST_F(CgroupTest, Nonsense_DoesNotLimit) {
  put("/proc/self/cgroup", "x\n::\n0:\n0::/gone/away\n");
  put("/proc/self/mountinfo", "\n1 2 3\n30 23 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n");
  put("/sys/fs/cgroup/memory.max", "many\n");
  put("/sys/fs/cgroup/cpu.max", "50000\n");
  EXPECT_EQ(memory_limit(root_).bytes, 1000U * 1024);
  EXPECT_FALSE(cpu_quota(root_).has_value());
}

TEST(Cgroup, RealMachine_DoesNotFail) { EXPECT_GT(memory_limit().available, 0U); }

}  // namespace
}  // namespace stoke::sys
