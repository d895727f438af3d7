#include "sys/profile.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "sys/memory.h"
#include "sys/peak.h"

namespace stoke::sys {
namespace {

class ProfileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "profile_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(ProfileTest, Measure_FillsEverythingAndLeavesNoFile) {
  std::filesystem::create_directory(folder_ + "/disk");
  ProfileOptions options;
  options.folder = folder_ + "/disk";
  options.file_bytes = 1;  // the least there is
  options.threads = 2;
  options.dram_bytes = size_t{4} << 20;
  options.seconds_per_step = 0.002;
  const Result<MachineProfile> profile = measure_machine(options);
  ASSERT_TRUE(profile.ok()) << profile.status().message();
  EXPECT_GT(profile->dram_read_all_threads_bytes_per_s, 1e8);
  for (const PeakRate& peak : profile->peaks) EXPECT_GT(peak.all_threads_ops_per_s, 1e6) << peak.name;
  EXPECT_EQ(profile->barrier.size(), 2U);
  ASSERT_TRUE(profile->disk.has_value());
  EXPECT_EQ(profile->disk->random.size(), 15U);
  for (const DiskRate& rate : profile->disk->random) EXPECT_GT(rate.bytes_per_s, 0) << rate.request_bytes;
  EXPECT_GT(profile->disk->sequential_direct_bytes_per_s, 0);
  EXPECT_TRUE(std::filesystem::is_empty(options.folder));
  EXPECT_EQ(profile_to_json(profile_from_json(profile_to_json(*profile)).value()), profile_to_json(*profile));
}

TEST_F(ProfileTest, Save_IsFoundAgainForTheSameMachineOnly) {
  MachineProfile profile;
  profile.key = profile_key(folder_);
  EXPECT_EQ(load_profile(profile.key).status().code(), Code::kNotFound);
  ASSERT_TRUE(save_profile(profile).ok());
  EXPECT_TRUE(load_profile(profile.key).ok());
  ProfileKey other = profile.key;
  other.kernel += "x";
  EXPECT_EQ(load_profile(other).status().code(), Code::kNotFound);
}

TEST_F(ProfileTest, FromJson_RefusesOtherThings) {
  EXPECT_EQ(profile_from_json("").status().code(), Code::kCorrupt);
  EXPECT_EQ(profile_from_json("{}").status().code(), Code::kCorrupt);
  EXPECT_EQ(profile_from_json("{\"version\": 99}").status().code(), Code::kCorrupt);
  EXPECT_EQ(profile_from_json("{\"version\": 2, \"machine\": 7}").status().code(), Code::kCorrupt);
}

TEST_F(ProfileTest, MeasureDisk_SaysWhenThereIsNoRoom) {
  ProfileOptions options;
  options.folder = folder_;
  options.file_bytes = uint64_t{1} << 60;
  EXPECT_EQ(measure_disk(options).status().code(), Code::kNoSpace);
}

TEST(Peak, ReadAll_SeesEveryByte) {
  const Result<Memory> memory = Memory::map(8192);
  ASSERT_TRUE(memory.ok());
  const uint64_t zero = read_all(memory->data(), 8192);
  for (const size_t at : {size_t{0}, size_t{1000}, size_t{8191}}) {
    memory->data()[at] = std::byte{1};
    EXPECT_NE(read_all(memory->data(), 8192), zero) << at;
    memory->data()[at] = std::byte{0};
  }
}

}  // namespace
}  // namespace stoke::sys
