// The profile as JSON, and where it is kept.
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "sys/files.h"
#include "sys/profile.h"

namespace stoke::sys {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kVersion = 2;

Json disk_to_json(const DiskProfile& disk) {
  Json random = Json::array();
  for (const DiskRate& rate : disk.random) {
    random.push_back({{"request_bytes", rate.request_bytes},
                      {"depth", rate.depth},
                      {"bytes_per_s", rate.bytes_per_s},
                      {"latency_us", rate.latency_us}});
  }
  return {{"dir", disk.folder},
          {"file_bytes", disk.file_bytes},
          {"direct", disk.direct},
          {"why_not_direct", disk.why_not_direct},
          {"reader", disk.reader},
          {"random", random},
          {"sequential_direct_bytes_per_s", disk.sequential_direct_bytes_per_s},
          {"sequential_buffered_bytes_per_s", disk.sequential_buffered_bytes_per_s}};
}

DiskProfile disk_from_json(const Json& json) {
  DiskProfile disk;
  disk.folder = json.at("dir");
  disk.file_bytes = json.at("file_bytes");
  disk.direct = json.at("direct");
  disk.why_not_direct = json.at("why_not_direct");
  disk.reader = json.at("reader");
  for (const Json& rate : json.at("random")) {
    disk.random.push_back({rate.at("request_bytes"), rate.at("depth"), rate.at("bytes_per_s"), rate.at("latency_us")});
  }
  disk.sequential_direct_bytes_per_s = json.at("sequential_direct_bytes_per_s");
  disk.sequential_buffered_bytes_per_s = json.at("sequential_buffered_bytes_per_s");
  return disk;
}

MachineProfile read_profile(const Json& json) {
  MachineProfile profile;
  const Json& key = json.at("machine");
  profile.key = {key.at("cpu"), key.at("cores"), key.at("kernel"), key.at("device")};
  profile.threads = json.at("threads");
  profile.dram_read_one_thread_bytes_per_s = json.at("dram_read").at("one_thread_bytes_per_s");
  profile.dram_read_all_threads_bytes_per_s = json.at("dram_read").at("all_threads_bytes_per_s");
  for (const Json& peak : json.at("peaks")) {
    profile.peaks.push_back({peak.at("name"), peak.at("kind") == "int8", peak.at("one_thread_ops_per_s"),
                             peak.at("all_threads_ops_per_s")});
  }
  for (const Json& cost : json.at("barrier")) profile.barrier.push_back({cost.at("threads"), cost.at("us")});
  if (json.contains("disk")) profile.disk = disk_from_json(json.at("disk"));
  return profile;
}

std::string cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && cache[0] == '/') return cache;
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr ? home : "/tmp") + "/.cache";
}

// FNV-1a: a file name for a machine, nothing more; the key inside the file is compared.
uint64_t hash_of(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

std::string profile_to_json(const MachineProfile& profile) {
  Json peaks = Json::array();
  for (const PeakRate& peak : profile.peaks) {
    peaks.push_back({{"name", peak.name},
                     {"kind", peak.int8 ? "int8" : "fp32"},
                     {"one_thread_ops_per_s", peak.one_thread_ops_per_s},
                     {"all_threads_ops_per_s", peak.all_threads_ops_per_s}});
  }
  Json barrier = Json::array();
  for (const BarrierCost& cost : profile.barrier) barrier.push_back({{"threads", cost.threads}, {"us", cost.us}});
  const ProfileKey& key = profile.key;
  Json json = {{"version", kVersion},
               {"machine", {{"cpu", key.cpu}, {"cores", key.cores}, {"kernel", key.kernel}, {"device", key.device}}},
               {"threads", profile.threads},
               {"dram_read",
                {{"one_thread_bytes_per_s", profile.dram_read_one_thread_bytes_per_s},
                 {"all_threads_bytes_per_s", profile.dram_read_all_threads_bytes_per_s}}},
               {"peaks", peaks},
               {"barrier", barrier}};
  if (profile.disk) json["disk"] = disk_to_json(*profile.disk);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<MachineProfile> profile_from_json(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    if (json.at("version") != kVersion) return Status(Code::kCorrupt, "a profile of another version");
    return read_profile(json);
  } catch (const nlohmann::json::exception& e) {
    return Status(Code::kCorrupt, fmt::format("not a machine profile: {}", e.what()));
  }
}

std::string profile_path(const ProfileKey& key) {
  const std::string text = fmt::format("{}|{}|{}|{}", key.cpu, key.cores, key.kernel, key.device);
  return fmt::format("{}/stoke/profile-{:016x}.json", cache_folder(), hash_of(text));
}

Result<MachineProfile> load_profile(const ProfileKey& key) {
  const std::string path = profile_path(key);
  STOKE_ASSIGN(const std::string text, read_file(path));
  Result<MachineProfile> profile = profile_from_json(text);
  if (!profile.ok()) return profile.status().with(path);
  if (profile->key != key) return Status(Code::kNotFound, fmt::format("{}: is of another machine", path));
  return profile;
}

Status save_profile(const MachineProfile& profile) {
  const std::string path = profile_path(profile.key);
  STOKE_TRY(make_folders(path.substr(0, path.rfind('/'))));
  return write_file_atomic(path, profile_to_json(profile));
}

}  // namespace stoke::sys
